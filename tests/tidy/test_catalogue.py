"""What exists twice on purpose - in protos, in the core, in the docs - says the same everywhere."""

from __future__ import annotations

import dataclasses
import re
import typing

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor

from coordinator.core import commands, events, model
from hivefold.errors import FIXES, Reason
from hivefold.v1 import command_pb2, error_pb2, event_pb2, job_pb2
from tests.tidy.source import ROOT

ERRORS = ROOT / "docs" / "errors.md"


def spelled(enum: EnumDescriptor, prefix: str) -> set[str]:
    return {value.name.removeprefix(prefix) for value in enum.values}


def bodies(message: Descriptor) -> dict[str, Descriptor]:
    return {body.name: body for field in message.oneofs_by_name["body"].fields if (body := field.message_type)}


def classes(union: object) -> dict[str, type]:
    return {member.__name__: member for member in typing.get_args(union)}


def plain(field_names: set[str]) -> set[str]:
    """Field names without the units that only one side spells out: protobuf has types for times."""
    return {re.sub(r"_(time|duration)(_us)?$|(?<=timeout)_us$", r"_\1", name) for name in field_names}


def test_every_event_of_the_contract_has_its_class() -> None:
    """The events of event.proto and of coordinator.core.events are the same."""
    assert set(bodies(event_pb2.Event.DESCRIPTOR)) == set(classes(events.Event))


def test_every_command_of_the_contract_has_its_class() -> None:
    """The commands of command.proto and of coordinator.core.commands are the same."""
    assert set(bodies(command_pb2.Command.DESCRIPTOR)) == set(classes(commands.CommandBody))


@pytest.mark.parametrize(
    ("message", "union"),
    [(event_pb2.Event.DESCRIPTOR, events.Event), (command_pb2.Command.DESCRIPTOR, commands.CommandBody)],
    ids=["events", "commands"],
)
def test_bodies_have_the_same_fields_in_both(message: Descriptor, union: object) -> None:
    """Field by field: what the log can hold is what the core knows."""
    known = classes(union)
    differing = {
        name: plain({field.name for field in body.fields})
        ^ plain({field.name for field in dataclasses.fields(known[name])})
        for name, body in bodies(message).items()
    }

    assert {name: fields for name, fields in differing.items() if fields} == {}


@pytest.mark.parametrize(
    ("enum", "prefix", "twin"),
    [
        (error_pb2.Reason.DESCRIPTOR, "REASON_", Reason),
        (event_pb2.RefusalReason.DESCRIPTOR, "REFUSAL_REASON_", events.RefusalReason),
        (job_pb2.Priority.DESCRIPTOR, "PRIORITY_", model.Priority),
        (job_pb2.JobState.DESCRIPTOR, "JOB_STATE_", model.JobState),
        (job_pb2.NanPolicy.DESCRIPTOR, "NAN_POLICY_", model.NanPolicy),
    ],
    ids=["Reason", "RefusalReason", "Priority", "JobState", "NanPolicy"],
)
def test_enums_have_the_same_values_in_both(enum: EnumDescriptor, prefix: str, twin: type[Reason]) -> None:
    """An enum of the contract and its twin in Python have the same values, the unspecified one apart."""
    assert spelled(enum, prefix) - {"UNSPECIFIED"} == {value.value for value in twin} - {"UNSPECIFIED"}


def test_every_reason_is_explained() -> None:
    """docs/errors.md says of each reason what it means and what to do, and an error's `fix` the same, without links."""
    page = re.sub(r" \(\[[^]]+\]\([^)]+\)\)", "", ERRORS.read_text(encoding="utf-8"))
    explained = re.findall(r"^\| `([A-Z_]+)` \| .+? \| (.+?) \|$", page, re.MULTILINE)

    assert dict(explained) == {reason.value: fix for reason, fix in FIXES.items() if fix}
    assert set(FIXES) == set(Reason)

"""Records of the log as people and programs see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from cli.output import as_plain
from cli.views import tensors, times
from hivefold.v1 import event_pb2, record_pb2


def parse(stored: record_pb2.StoredRecord) -> record_pb2.Record:
    """What a stored record says."""
    return record_pb2.Record.FromString(stored.data)


def line(stored: record_pb2.StoredRecord) -> str:
    """One record in a line, as plain text: position, time, term, cause, events."""
    record = parse(stored)
    cause = _camel(record.cause.WhichOneof("body") or "unknown")
    events = ", ".join(brief(event) for event in record.events)
    return f"{stored.sequence:>8}  {times.clock_time(record.record_time)}  t{record.term:<3} {cause:<14}  {events}"


def plain(stored: record_pb2.StoredRecord) -> dict[str, Any]:
    """One record in protobuf's JSON mapping, with the subject and the hash (hex) that it is stored under."""
    return {"subject": stored.subject, "hash": stored.hash.hex(), **as_plain(parse(stored))}


def brief(event: event_pb2.Event) -> str:
    """An event's name and the things that it is about: "TasksSucceeded j-1 12 tasks node-1"."""
    name = event.WhichOneof("body")
    if name is None:
        return "(unknown)"
    return " ".join([_camel(name), *filter(None, _about(getattr(event, name)))])


def _about(body: Message) -> Iterator[str]:
    for field in body.DESCRIPTOR.fields:
        value = getattr(body, field.name)
        if field.name in {"job_id", "node_id", "coordinator_id", "key_id"}:
            yield value
        elif field.name == "spec" and field.message_type is not None and "node_id" in field.message_type.fields_by_name:
            yield value.node_id
        elif field.name == "model":
            yield value if isinstance(value, str) else tensors.ref(value)
        elif field.name == "task_count" or (field.name == "tasks" and len(value)):
            number = value if field.name == "task_count" else len(value)
            yield f"{number} task{'' if number == 1 else 's'}"


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))

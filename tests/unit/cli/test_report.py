"""Errors as people and programs get them."""

from __future__ import annotations

import json

import pytest

from cli.report import HINTS, asked_for_json, report
from hivefold.errors import FieldViolation, HivefoldError, InvalidRequestError, NotFoundError, Reason


def test_every_reason_has_a_hint() -> None:
    """Whatever goes wrong, there is a line that says what to do."""
    assert set(HINTS) == set(Reason)
    assert all(hint and "\n" not in hint for hint in HINTS.values())


def test_people_get_one_line_what_and_one_line_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    """Text goes to standard error: what happened, then what to do; nothing goes to standard output."""
    report(NotFoundError("no job\n j-1", reason=Reason.JOB_NOT_FOUND), as_json=False)

    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: no job j-1\n  -> see the fleet's jobs with: hivefold job ls\n"


def test_each_malformed_field_gets_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Violations are named between what happened and what to do."""
    violations = [FieldViolation("spec.timeout", "must be positive"), FieldViolation("request_id", "too long")]
    report(InvalidRequestError("2 fields are malformed", violations=violations), as_json=False)

    assert capsys.readouterr().err.splitlines()[1:3] == ["  spec.timeout: must be positive", "  request_id: too long"]


def test_a_field_that_the_message_names_is_not_named_twice(capsys: pytest.CaptureFixture[str]) -> None:
    """One malformed field is one line."""
    violations = [FieldViolation("spec.timeout", "must be positive")]
    report(InvalidRequestError("spec.timeout must be positive", violations=violations), as_json=False)

    assert capsys.readouterr().err.count("must be positive") == 1


def test_programs_get_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With -o json the error is one JSON line on standard error."""
    error = HivefoldError("too many", reason=Reason.LIMIT_EXCEEDED, metadata={"limit": "5"})
    report(error, as_json=True)

    told = json.loads(capsys.readouterr().err)["error"]
    assert (told["reason"], told["message"], told["metadata"]) == ("LIMIT_EXCEEDED", "too many", {"limit": "5"})


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("job ls -o json", True),
        ("job ls --output jsonl", True),
        ("job ls --output=json", True),
        ("job ls -o=json", True),
        ("job ls -o text", False),
        ("job ls json", False),
        ("", False),
    ],
)
def test_json_is_noticed_even_where_parsing_fails(line: str, asked: bool) -> None:
    """Whether errors are written as JSON is told from the raw command line."""
    assert asked_for_json(line.split()) is asked


def test_a_command_that_the_message_names_is_not_named_twice(capsys: pytest.CaptureFixture[str]) -> None:
    """The hint is left out where it would only repeat the message."""
    report(
        HivefoldError("there is no job 'j'; list them with: hivefold job ls", reason=Reason.JOB_NOT_FOUND),
        as_json=False,
    )
    assert capsys.readouterr().err.count("hivefold job ls") == 1

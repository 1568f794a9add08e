"""Messages made of what a caller gives: numbers that no message can hold are refused by name."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from hivefold.errors import FieldViolation, InvalidRequestError

_Made = TypeVar("_Made", bound=Message)
_LONGEST_S: Final = 315_576_000_000.0
"""Ten thousand years, the bound of protobuf's Duration."""


def message(kind: type[_Made], **fields: Any) -> _Made:
    """A message with these fields. Raises InvalidRequestError that names the field which cannot hold its value."""
    try:
        return kind(**fields)
    except (ValueError, TypeError):
        for name, value in fields.items():
            try:
                kind(**{name: value})
            except (ValueError, TypeError) as error:
                raise refused(name, f"cannot be {str(value)[:80]}: {error}") from None
        raise


def duration(field: str, seconds: float) -> Duration | None:
    """A Duration; None for 0. Raises InvalidRequestError for what is no length of time."""
    if not seconds:
        return None
    if not abs(seconds) <= _LONGEST_S:
        raise refused(field, f"must be a number of seconds up to {_LONGEST_S:.0f}, is {seconds}")
    made = Duration()
    made.FromTimedelta(timedelta(seconds=seconds))
    return made


def enum_name(enum: Any, number: int) -> str:
    """The name of an enum's value; that of 0 for one that a newer server knows."""
    return str(enum.Name(number if number in enum.values() else 0))


def refused(field: str, fix: str) -> InvalidRequestError:
    """The error that names a field and what to do about it."""
    return InvalidRequestError(f"{field} {fix}", violations=[FieldViolation(field, fix)])

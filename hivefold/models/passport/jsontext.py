"""JSON from a file that is not trusted: bounded in size and depth, without repeated keys."""

from __future__ import annotations

import json
from typing import Any, Final

from hivefold.models.passport.limits import JSON_BYTES
from hivefold.models.passport.source import Source
from hivefold.models.wire import MalformedError

_NUMBER: Final = 1000
"""Longest number in digits."""


def parsed(source: Source) -> dict[str, Any]:
    """A JSON object. Raises MalformedError."""
    if source.size > JSON_BYTES:
        raise MalformedError(f"{source.name} has {source.size} bytes, and at most {JSON_BYTES} are parsed as JSON")
    return parsed_text(source.at(0, source.size), source.name)


def parsed_text(text: bytes | str, name: str) -> dict[str, Any]:
    """A JSON object from a text of bounded size. Raises MalformedError."""
    try:
        found = json.loads(text, object_pairs_hook=_unique, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"{name} is not the JSON that it should be") from error
    if not isinstance(found, dict):
        raise MalformedError(f"{name} holds no JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key is repeated")
    return made


def _integer(text: str) -> int:
    if len(text) > _NUMBER:
        raise ValueError("a number is absurd")
    return int(text)

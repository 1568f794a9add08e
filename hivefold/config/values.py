"""How a value is read, whichever source it comes from: text from the environment, typed from a file. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias, TypeVar

from hivefold.ids import NAME_RULE, is_name
from hivefold.limits import JOB_LABELS, LABEL_BYTES

Parse: TypeAlias = Callable[[object], object]
"""Returns the value. Raises ValueError that says what it must be."""

_Choice = TypeVar("_Choice", bound=StrEnum)


def text(raw: object) -> str:
    """Any text of one line."""
    if not isinstance(raw, str) or any(character in raw for character in "\r\n\0"):
        raise ValueError("must be a text of one line")
    return raw


def name(raw: object) -> str:
    """An id of hivefold."""
    if not isinstance(raw, str) or not is_name(raw):
        raise ValueError(f"must be {NAME_RULE}")
    return raw


def path(raw: object) -> Path:
    """A path; `~` is the home directory."""
    if isinstance(raw, Path):
        return raw.expanduser()
    if not text(raw):
        raise ValueError("must be a path")
    return Path(text(raw)).expanduser()


def switch(raw: object) -> bool:
    """True or false, as TOML writes them."""
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.lower() in {"true", "false"}:
        return raw.lower() == "true"
    raise ValueError("must be true or false")


def integer(least: int, most: int) -> Parse:
    """A whole number within bounds."""

    def parse(raw: object) -> int:
        try:
            value = int(raw) if isinstance(raw, str) else raw
        except ValueError:
            value = None
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return parse


def number(least: float, most: float) -> Parse:
    """A number within bounds."""

    def parse(raw: object) -> float:
        try:
            value = float(raw) if isinstance(raw, str | int | float) and not isinstance(raw, bool) else None
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise ValueError(f"must be a number from {least:g} to {most:g}")
        return value

    return parse


def choice(kind: type[_Choice]) -> Parse:
    """One of an enumeration's values."""

    def parse(raw: object) -> _Choice:
        try:
            return kind(str(raw))
        except ValueError:
            raise ValueError(f"must be one of {', '.join(kind)}") from None

    return parse


def texts(raw: object) -> tuple[str, ...]:
    """A list of texts, or texts with commas between them."""
    parts = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(parts, list | tuple) or not parts:
        raise ValueError('must be a list of texts, or "one,two"')
    return tuple(text(part).strip() for part in parts)


def labels(raw: object) -> dict[str, str]:
    """A table of texts, or "key=value,key=value"."""
    if isinstance(raw, str):
        raw = dict(part.partition("=")[::2] for part in raw.split(",") if part)
    if not isinstance(raw, Mapping) or len(raw) > JOB_LABELS:
        raise ValueError(f'must be a table of at most {JOB_LABELS} texts, or "key=value,key=value"')
    for key, value in raw.items():
        if not is_name(key) or len(text(value).encode()) > LABEL_BYTES:
            raise ValueError(f"label {key!r} must be {NAME_RULE}, its value at most {LABEL_BYTES} bytes")
    return dict(raw)

"""Ids of things in a fleet, and what a well-formed one looks like. Pure."""

from __future__ import annotations

import re
from typing import Final, NewType

JobId = NewType("JobId", str)
NodeId = NewType("NodeId", str)
BootId = NewType("BootId", str)
RequestId = NewType("RequestId", str)
ModelName = NewType("ModelName", str)
ModelRef = NewType("ModelRef", str)
"""A model version, "name@version"."""
AliasRef = NewType("AliasRef", str)
"""A name for a model version that can be moved, "name@alias"."""
Digest = NewType("Digest", str)
"""SHA-256, 64 lower-case hex digits."""

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?")
_REQUEST: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MODEL_REF: Final = re.compile(r"(?P<name>[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?)(?:@(?P<version>[1-9][0-9]{0,8}))?")
_ALIAS: Final = re.compile(r"(?!latest$)[a-z](?:[a-z0-9_-]{0,62}[a-z0-9])?")
_CROCKFORD: Final = "0123456789abcdefghjkmnpqrstvwxyz"

NAME_RULE: Final = "1 to 64 of [a-z0-9_-], starting and ending with a letter or digit"
REQUEST_RULE: Final = "1 to 64 of [A-Za-z0-9._-]"
MODEL_RULE: Final = 'a model name, "name@version" with a version from 1, or "name@alias"'
VERSION_RULE: Final = 'a model and its version, "name@3"'
ALIAS_RULE: Final = 'a letter, then up to 63 of [a-z0-9_-], ending with a letter or digit, and not "latest"'
DIGEST_RULE: Final = "64 lower-case hex digits (SHA-256)"


def is_name(text: str) -> bool:
    """Whether `text` may name a node, a job or a model: it is also one NATS subject token."""
    return _NAME.fullmatch(text) is not None


def is_request_id(text: str) -> bool:
    """Whether `text` may be a client's request id."""
    return _REQUEST.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Whether `text` is a SHA-256 digest as hivefold writes it."""
    return _DIGEST.fullmatch(text) is not None


def parse_model(text: str) -> tuple[ModelName, int] | None:
    """Splits "name" or "name@version"; version 0 stands for the latest. None if malformed."""
    match = _MODEL_REF.fullmatch(text)
    if match is None:
        return None
    return ModelName(match["name"]), int(match["version"] or 0)


def is_alias(text: str) -> bool:
    """Whether `text` may be an alias of a model: it can never be taken for a version."""
    return _ALIAS.fullmatch(text) is not None


def parse_alias(text: str) -> tuple[ModelName, str] | None:
    """Splits "name@alias". None if malformed."""
    name, _, alias = text.partition("@")
    return (ModelName(name), alias) if is_name(name) and is_alias(alias) else None


def names_model(text: str) -> bool:
    """Whether `text` may name a model version: "name", "name@version" or "name@alias"."""
    return parse_model(text) is not None or parse_alias(text) is not None


def alias_ref(name: ModelName, alias: str) -> AliasRef:
    """The ref of an alias."""
    return AliasRef(f"{name}@{alias}")


def model_ref(name: ModelName, version: int) -> ModelRef:
    """The ref of one model version."""
    return ModelRef(f"{name}@{version}")


def sortable_id(prefix: str, time_ms: int, entropy: bytes) -> str:
    """An id that sorts by time: prefix, 10 digits of time, 16 of entropy (Crockford base 32, as ULID).

    `entropy` MUST be 10 random bytes; `time_ms` is Unix time in milliseconds.
    """
    value = (time_ms << 80) | int.from_bytes(entropy, "big")
    digits = [_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5)]
    return f"{prefix}-{''.join(digits)}"

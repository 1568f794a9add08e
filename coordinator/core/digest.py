"""A digest of the whole state: equal states give equal digests on any machine. Pure.

The state is written as JSON, one line a field, or a map's entry where the field is a map: tuples as arrays,
maps as the array of their sorted keys and that of their values, dataclasses with their name first. No two
different states share a text, and the standard library's encoder writes it in C.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from json import JSONEncoder
from typing import Final

from immutables import Map

from coordinator.core.model import JobSpec, State
from hivefold.ids import Digest

_DOMAIN: Final = b"hivefold-state-v1\n"
_ABSENT_WHEN_EMPTY: Final = frozenset(
    {
        *("signing_keys", "erasures", "passport", "provenance", "inference_position"),
        *("removed", "aliases", "residencies", "kept", "discarded", "model_requests"),
    }
)
"""What came after 0.1.0: logs without it keep their digest for ever."""


def state_digest(state: State) -> Digest:
    """SHA-256 of the canonical text of the state, 64 hex digits. Linear in the state's size."""
    encoder = JSONEncoder(default=_plain, separators=(",", ":"), ensure_ascii=True, check_circular=False)
    digest = hashlib.sha256(_DOMAIN)
    for line in _lines(state):
        digest.update(encoder.encode(line).encode() + b"\n")
    return Digest(digest.hexdigest())


def spec_fingerprint(spec: JobSpec) -> int:
    """63 bits of a digest of a spec: tells a client's slip, a request id used for something else, from a repeat."""
    text = _SPEC_ENCODER.encode(spec).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8]) >> 1


def _lines(state: State) -> Iterator[object]:
    for name, value in zip(State._fields, state, strict=True):
        if name in _ABSENT_WHEN_EMPTY and not value:
            continue
        if isinstance(value, Map):
            keys, values = _columns(value)
            yield name, len(keys)
            yield from zip(keys, values, strict=True)
        else:
            yield name, value


def _plain(value: object) -> object:
    """What JSON has no form for: bytes, maps and dataclasses."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Map):
        return _columns(value)
    if is_dataclass(value) and not isinstance(value, type):
        names = _names(type(value))
        given = [getattr(value, name) for name in names]
        while names[len(given) - 1] in _ABSENT_WHEN_EMPTY and not given[-1]:
            given.pop()
        return [type(value).__name__, *given]
    raise TypeError(f"no canonical text for {type(value).__name__}")


def _columns(value: Map[str | int, object]) -> tuple[list[str | int], list[object]]:
    """Keys and values apart: a pair for each entry would set the cycle collector off again and again."""
    entries = dict(value)
    keys = sorted(entries)
    return keys, list(map(entries.__getitem__, keys))


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


_SPEC_ENCODER: Final = JSONEncoder(default=_plain, separators=(",", ":"), ensure_ascii=True, check_circular=False)

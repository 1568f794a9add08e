"""A digest of the whole state: equal states give equal digests on any machine. Pure.

Every value is written with a tag and its length or end, maps in the order of their keys, so that no two
different states share an encoding.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import fields, is_dataclass
from enum import StrEnum

from immutables import Map

from coordinator.core.model import State
from hivefold.ids import Digest

_FLUSH_BYTES = 1 << 20


def state_digest(state: State) -> Digest:
    """SHA-256 of the canonical encoding of the state, 64 hex digits. Linear in the state's size."""
    writer = _Writer()
    writer.write(state)
    return Digest(writer.finish())


class _Writer:
    def __init__(self) -> None:
        self._hash = hashlib.sha256(b"hivefold-state-v1\0")
        self._buffer = bytearray()
        self._fields: dict[type[object], tuple[str, ...]] = {}

    def finish(self) -> str:
        self._hash.update(self._buffer)
        return self._hash.hexdigest()

    def write(self, value: object) -> None:
        buffer = self._buffer
        if isinstance(value, StrEnum):
            self._text(b"e", value.value)
        elif isinstance(value, str):
            self._text(b"s", value)
        elif isinstance(value, bool) or value is None:
            buffer += {True: b"T", False: b"F", None: b"N"}[value]
        elif isinstance(value, int):
            self._text(b"i", str(value))
        elif isinstance(value, float):
            buffer += b"f" + struct.pack(">d", value)
        elif isinstance(value, tuple):
            self._items(b"t", value)
        elif isinstance(value, Map):
            self._map(value)
        elif is_dataclass(value) and not isinstance(value, type):
            kind: type[object] = type(value)
            if kind not in self._fields:
                self._fields[kind] = tuple(field.name for field in fields(value))
            self._text(b"d", kind.__name__)
            for name in self._fields[kind]:
                self.write(getattr(value, name))
        else:
            raise TypeError(f"no canonical encoding for {type(value).__name__}")
        if len(buffer) >= _FLUSH_BYTES:
            self._hash.update(buffer)
            buffer.clear()

    def _text(self, tag: bytes, text: str) -> None:
        data = text.encode()
        self._buffer += tag + struct.pack(">I", len(data)) + data

    def _items(self, tag: bytes, items: tuple[object, ...]) -> None:
        self._buffer += tag + struct.pack(">I", len(items))
        for item in items:
            self.write(item)

    def _map(self, value: Map[str | int, object]) -> None:
        self._buffer += b"m" + struct.pack(">I", len(value))
        for key in sorted(value):
            self.write(key)
            self.write(value[key])

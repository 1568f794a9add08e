"""Walks protobuf's wire format over a file that is not trusted: bounded, copying nothing.

The ONNX schema is not compiled in: weights would be parsed into memory only to be skipped, and a
walker can count what it looks at. Every field is checked to lie inside its message.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

_VARINT: Final = 0
_FIXED64: Final = 1
_LENGTH: Final = 2
_FIXED32: Final = 5


class MalformedError(Exception):
    """The bytes are not the message they should be; the text says in what way."""


class Span(NamedTuple):
    """A range of the file: [start, end)."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes in it."""
        return self.end - self.start


class Field(NamedTuple):
    """One field of a message: its number and either a number or a range of bytes."""

    number: int
    value: int | Span

    def span(self) -> Span:
        """The field's bytes. Raises MalformedError when it holds a number."""
        if isinstance(self.value, int):
            raise MalformedError(f"field {self.number} holds a number where bytes belong")
        return self.value

    def integer(self) -> int:
        """The field as int64. Raises MalformedError when it holds bytes."""
        if not isinstance(self.value, int):
            raise MalformedError(f"field {self.number} holds bytes where a number belongs")
        return self.value - (1 << 64) if self.value >> 63 else self.value


@dataclass(slots=True)
class Wire:
    """A file's bytes and how many more fields may be looked at."""

    data: mmap.mmap | bytes
    fields_left: int

    def fields(self, message: Span) -> Iterator[Field]:
        """The fields of a message in order. Raises MalformedError where the bytes are none."""
        position = message.start
        while position < message.end:
            self.fields_left -= 1
            if self.fields_left < 0:
                raise MalformedError("it has more parts than any model needs")
            tag, position = self._varint(position, message.end)
            number, kind = tag >> 3, tag & 7
            if not 0 < number < 1 << 29:
                raise MalformedError(f"field number {number} at byte {position} does not exist")
            if kind == _VARINT:
                value, position = self._varint(position, message.end)
                yield Field(number, value)
                continue
            if kind == _LENGTH:
                size, position = self._varint(position, message.end)
            elif kind in {_FIXED64, _FIXED32}:
                size = 8 if kind == _FIXED64 else 4
            else:
                raise MalformedError(f"wire type {kind} at byte {position} does not exist")
            if size > message.end - position:
                raise MalformedError(f"it ends {size - (message.end - position)} bytes too early")
            yield Field(number, Span(position, position + size))
            position += size

    def text(self, span: Span, max_bytes: int) -> str:
        """A UTF-8 string of at most `max_bytes`. Raises MalformedError."""
        if span.size > max_bytes:
            raise MalformedError(f"a name of {span.size} bytes is longer than the {max_bytes} allowed")
        try:
            return self.data[span.start : span.end].decode()
        except UnicodeDecodeError as error:
            raise MalformedError("a name is not UTF-8") from error

    def integers(self, field: Field) -> Iterator[int]:
        """A repeated int64, packed or not. Raises MalformedError."""
        if isinstance(field.value, int):
            yield field.integer()
            return
        position = field.value.start
        while position < field.value.end:
            self.fields_left -= 1
            if self.fields_left < 0:
                raise MalformedError("it has more parts than any model needs")
            value, position = self._varint(position, field.value.end)
            yield value - (1 << 64) if value >> 63 else value

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while position < end:
            byte = self.data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, position
            shift += 7
            if shift >= 70:
                raise MalformedError(f"the number at byte {position} has no end")
        raise MalformedError("it ends inside a number")

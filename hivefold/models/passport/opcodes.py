"""Decodes the opcodes of a pickle, protocol 0 to 5, without giving them any effect.

Where CPython's unpickler accepts more than one spelling, so does this; where this fails, nothing is
promised about what an unpickler would do next. Formats: CPython's Lib/pickletools.py.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from hivefold.models.passport.draft import Budget
from hivefold.models.passport.limits import PICKLE_TEXT_BYTES
from hivefold.models.passport.source import Source
from hivefold.models.wire import MalformedError

_LINE_BYTES: Final = 4 * PICKLE_TEXT_BYTES


@dataclass(frozen=True, slots=True)
class Blob:
    """A byte string, or a text or number too long to be kept: only where it lies."""

    start: int
    size: int
    textual: bool = False


Argument: TypeAlias = int | float | str | bool | bytes | Blob | tuple[str, str] | None


class Opcode(NamedTuple):
    """One instruction: its byte offset, its name as pickletools spells it, its argument."""

    position: int
    name: str
    argument: Argument


_PLAIN: Final = {
    0x97: "NEXT_BUFFER", 0x98: "READONLY_BUFFER", 0x4E: "NONE", 0x88: "NEWTRUE", 0x89: "NEWFALSE", 0x5D: "EMPTY_LIST",
    0x61: "APPEND", 0x65: "APPENDS", 0x6C: "LIST", 0x29: "EMPTY_TUPLE", 0x74: "TUPLE", 0x85: "TUPLE1", 0x86: "TUPLE2",
    0x87: "TUPLE3", 0x7D: "EMPTY_DICT", 0x64: "DICT", 0x73: "SETITEM", 0x75: "SETITEMS", 0x8F: "EMPTY_SET",
    0x90: "ADDITEMS", 0x91: "FROZENSET", 0x30: "POP", 0x32: "DUP", 0x28: "MARK", 0x31: "POP_MARK", 0x94: "MEMOIZE",
    0x93: "STACK_GLOBAL", 0x52: "REDUCE", 0x62: "BUILD", 0x6F: "OBJ", 0x81: "NEWOBJ", 0x92: "NEWOBJ_EX", 0x2E: "STOP",
    0x51: "BINPERSID",
}  # fmt: skip
_FIXED: Final = {
    0x4A: ("BININT", "<i"), 0x4B: ("BININT1", "<B"), 0x4D: ("BININT2", "<H"), 0x47: ("BINFLOAT", ">d"),
    0x68: ("BINGET", "<B"), 0x6A: ("LONG_BINGET", "<I"), 0x71: ("BINPUT", "<B"), 0x72: ("LONG_BINPUT", "<I"),
    0x82: ("EXT1", "<B"), 0x83: ("EXT2", "<H"), 0x84: ("EXT4", "<i"), 0x80: ("PROTO", "<B"), 0x95: ("FRAME", "<Q"),
}  # fmt: skip
_SIZED: Final = {
    0x8A: ("LONG1", "<B", "long"), 0x8B: ("LONG4", "<i", "long"), 0x54: ("BINSTRING", "<i", "text"),
    0x55: ("SHORT_BINSTRING", "<B", "text"), 0x42: ("BINBYTES", "<I", "bytes"), 0x43: ("SHORT_BINBYTES", "<B", "bytes"),
    0x8E: ("BINBYTES8", "<Q", "bytes"), 0x96: ("BYTEARRAY8", "<Q", "bytes"), 0x8C: ("SHORT_BINUNICODE", "<B", "text"),
    0x58: ("BINUNICODE", "<I", "text"), 0x8D: ("BINUNICODE8", "<Q", "text"),
}  # fmt: skip
_LINES: Final = {
    0x49: "INT", 0x4C: "LONG", 0x53: "STRING", 0x56: "UNICODE", 0x46: "FLOAT", 0x67: "GET", 0x70: "PUT", 0x50: "PERSID",
}  # fmt: skip
_PAIRS: Final = {0x63: "GLOBAL", 0x69: "INST"}
_ESCAPE: Final = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|(.))", re.DOTALL)


class Decoder:
    """Reads opcodes one after the other; `position` is the next one's, and may be set by whoever skips raw bytes."""

    def __init__(self, source: Source, budget: Budget, position: int = 0) -> None:
        self.position = position
        self._source = source
        self._budget = budget

    def opcodes(self) -> Iterator[Opcode]:
        """The opcodes up to and with STOP. Raises MalformedError where the bytes are none, ExhaustedError."""
        while True:
            self._budget.spend()
            opcode = self._opcode()
            yield opcode
            if opcode.name == "STOP":
                return

    def _opcode(self) -> Opcode:
        start = self.position
        code = self._take(1)[0]
        if code in _PLAIN:
            return Opcode(start, _PLAIN[code], None)
        if code in _FIXED:
            name, form = _FIXED[code]
            (number,) = struct.unpack(form, self._take(struct.calcsize(form)))
            return Opcode(start, name, number)
        if code in _SIZED:
            name, form, kind = _SIZED[code]
            (size,) = struct.unpack(form, self._take(struct.calcsize(form)))
            return Opcode(start, name, self._sized(size, kind))
        if code in _LINES:
            return Opcode(start, _LINES[code], _of_line(_LINES[code], self._line()))
        if code in _PAIRS:
            return Opcode(start, _PAIRS[code], (_text(self._line()), _text(self._line())))
        raise MalformedError(f"byte {start} is no opcode of a pickle ({code:#04x})")

    def _take(self, size: int) -> bytes:
        taken = self._source.at(self.position, size)
        self.position += size
        return taken

    def _sized(self, size: int, kind: str) -> Argument:
        start = self.position
        if size < 0 or size > self._source.size - start:
            raise MalformedError(f"byte {start}: a value of {size} bytes does not fit the file")
        self.position += size
        if kind == "bytes" or size > PICKLE_TEXT_BYTES:
            return Blob(start, size, kind == "text")
        data = self._source.at(start, size)
        return _text(data) if kind == "text" else int.from_bytes(data, "little", signed=True)

    def _line(self) -> bytes:
        end = self._source.find(b"\n", self.position, self.position + _LINE_BYTES)
        if end < 0:
            raise MalformedError(f"byte {self.position}: a line has no end")
        line = self._source.at(self.position, end - self.position)
        self.position = end + 1
        return line


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _of_line(name: str, line: bytes) -> Argument:
    match name:
        case "STRING":
            return _unescaped(line.strip().strip(b"'\""))
        case "UNICODE":
            return _unescaped(line)
        case "PERSID":
            return _text(line)
        case "FLOAT":
            return _float(line)
        case _:
            if name == "INT" and line in {b"00", b"01"}:
                return line == b"01"
            return _integer(line)


def _integer(line: bytes) -> int | Blob:
    text = line.strip().rstrip(b"L\x00")
    if not re.fullmatch(rb"[+-]?[0-9_]{1,4000}", text):
        return Blob(0, len(line), textual=True)
    try:
        return int(text)
    except ValueError:
        return Blob(0, len(line), textual=True)


def _float(line: bytes) -> float | Blob:
    try:
        return float(line)
    except ValueError:
        return Blob(0, len(line), textual=True)


def _unescaped(text: bytes) -> str:
    """A text with its escapes resolved, those of `raw-unicode-escape` and of `escape_decode` alike."""
    if b"\\" not in text:
        return _text(text)
    return _ESCAPE.sub(_character, text).decode("utf-8", "replace")


def _character(found: re.Match[bytes]) -> bytes:
    digits, octal, plain = found[1] or found[2] or found[3], found[4], found[5]
    if plain is not None:
        named = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v", b"\n": b""}
        return named.get(plain, plain)
    code = int(digits, 16) if digits else int(octal, 8)
    return chr(code).encode("utf-8", "surrogatepass") if code <= 0x10FFFF else b"?"

"""How a log file is cut into entries (docs/log-format.md): magic, entries with their lengths before them, trailer.

Readers use `pread`, so any number of them may share one file.
"""

from __future__ import annotations

import hashlib
import os
import struct
from typing import Final

from hivefold.errors import LogFileInvalidError
from hivefold.limits import LOG_FILE_ENTRY_BYTES, LOG_FILE_MARK_RECORDS, LOG_FILE_MARKS, LOG_FILE_READ_BYTES

MAGIC: Final = b"\x89HFLOG\r\n"
"""First bytes of a log file. The first is no text, the last are changed by whatever mangles line ends."""
FORMAT_VERSION: Final = 1
TRAILER: Final = struct.Struct(">Q")
"""Last bytes of a log file: the offset of its end entry."""
_CONTINUES: Final = 0x80
_LENGTH_BYTES: Final = 4
"""Most bytes of a length: enough for LOG_FILE_ENTRY_BYTES."""


def length_prefix(size: int) -> bytes:
    """A length as a protobuf varint, as short as it can be."""
    prefix = bytearray()
    while size >= _CONTINUES:
        prefix.append(size & 0x7F | _CONTINUES)
        size >>= 7
    prefix.append(size)
    return bytes(prefix)


class Marks:
    """Every n-th record with its offset; n doubles whenever there would be more than LOG_FILE_MARKS."""

    def __init__(self) -> None:
        self.found: list[tuple[int, int]] = []
        self._every = LOG_FILE_MARK_RECORDS
        self._seen = 0

    def record(self, sequence: int, offset: int) -> None:
        """The next record and where its entry begins."""
        if self._seen % self._every == 0:
            self.found.append((sequence, offset))
            if len(self.found) > LOG_FILE_MARKS:
                del self.found[1::2]
                self._every *= 2
        self._seen += 1


class Frames:
    """Reads entries one after another from `offset` on, in constant memory."""

    def __init__(self, fd: int, offset: int = 0, *, digest: bool = False) -> None:
        self._fd = fd
        self._data = b""
        self._start = offset
        """Offset of the first byte in `_data`."""
        self._at = 0
        self._digest = hashlib.sha256() if digest else None
        self._digested = 0

    @property
    def offset(self) -> int:
        """Where the next entry begins."""
        return self._start + self._at

    def digest(self, offset: int) -> bytes:
        """SHA-256 of the file up to `offset`, which MUST be where the last or the next entry begins."""
        assert self._digest is not None
        self._absorb(offset - self._start)
        return self._digest.digest()

    def take_magic(self, position: int) -> None:
        """Reads the magic. Raises LogFileInvalidError."""
        self._fill(len(MAGIC))
        if self._data[: len(MAGIC)] != MAGIC:
            raise LogFileInvalidError("this is no log file: its first bytes are others", offset=0, position=position)
        self._at = len(MAGIC)

    def next(self, position: int) -> tuple[int, bytes]:
        """The next entry: where it begins, and its bytes.

        Raises LogFileInvalidError, with `position`, where the file ends before the entry does, or the
        entry's length is none.
        """
        at = self._at
        if len(self._data) - at < _LENGTH_BYTES:
            self._absorb(at)
            self._fill(_LENGTH_BYTES)
            at = self._at
        data, begin = self._data, at
        size = shift = 0
        while True:
            if at == len(data):
                raise self._cut_short(position)
            byte = data[at]
            at += 1
            size |= (byte & 0x7F) << shift
            if byte < _CONTINUES:
                break
            shift += 7
            if shift == 7 * _LENGTH_BYTES:
                raise self._bad_length(position)
        if size > LOG_FILE_ENTRY_BYTES or size == 0 or (byte == 0 and shift):
            raise self._bad_length(position)
        if at + size > len(data):
            self._absorb(begin)
            head = at - begin
            self._fill(head + size)
            data, begin, at = self._data, 0, head
            if at + size > len(data):
                raise self._cut_short(position)
        self._at = at + size
        return self._start + begin, data[at : at + size]

    def rest(self) -> bytes:
        """What follows, up to one byte more than a trailer has."""
        self._absorb(self._at)
        self._fill(TRAILER.size + 1)
        return self._data[self._at :][: TRAILER.size + 1]

    def _fill(self, size: int) -> None:
        """Lets `_data` begin at the next entry and hold at least `size` bytes, where the file has them."""
        self._start += self._at
        data, self._at, self._digested = self._data[self._at :], 0, 0
        while len(data) < size:
            wanted = max(size - len(data), LOG_FILE_READ_BYTES)
            piece = os.pread(self._fd, wanted, self._start + len(data))
            if not piece:
                break
            data += piece
        self._data = data

    def _absorb(self, at: int) -> None:
        """Digests what comes before index `at` of `_data`."""
        if self._digest is not None and at > self._digested:
            self._digest.update(memoryview(self._data)[self._digested : at])
            self._digested = at

    def _cut_short(self, position: int) -> LogFileInvalidError:
        return LogFileInvalidError(
            f"the file ends in the middle of an entry at byte {self.offset}: it was cut short",
            offset=self.offset,
            position=position,
        )

    def _bad_length(self, position: int) -> LogFileInvalidError:
        return LogFileInvalidError(
            f"the entry at byte {self.offset} has an impossible length", offset=self.offset, position=position
        )

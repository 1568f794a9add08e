"""Reads a zip archive's directory, bounded, and tells where two readers could see different archives.

Format: PKWARE's APPNOTE.TXT, 4.3 and 4.4. Loaders differ in which of two names or sizes they believe,
so every contradiction is evidence: a scanner and a loader must not see different files.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from hivefold.models.passport.draft import Draft
from hivefold.models.passport.limits import UNPACKED_BYTES, UNPACKED_RATIO, ZIP_DIRECTORY_BYTES, ZIP_ENTRIES
from hivefold.models.passport.source import Source, of_bytes
from hivefold.models.wire import MalformedError

_END: Final = b"PK\x05\x06"
_END_BYTES: Final = 22
_COMMENT: Final = 65_535
_LOCATOR: Final = b"PK\x06\x07"
_END64: Final = b"PK\x06\x06"
_CENTRAL: Final = b"PK\x01\x02"
_LOCAL: Final = b"PK\x03\x04"
_STORED: Final = 0
_DEFLATED: Final = 8
_ENCRYPTED: Final = 1
_LONG: Final = 0xFFFF_FFFF
_MOST: Final = (0xFFFF, _LONG, _LONG)
"""Entries, bytes and place that say: look at the 64-bit record."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the archive; `start` is where its bytes begin, once its local header was read."""

    name: str
    method: int
    packed_bytes: int
    size_bytes: int
    start: int

    @property
    def folder(self) -> bool:
        """Whether it is a folder."""
        return self.name.endswith("/")


class Archive:
    """A zip archive. Entries by name; what is odd about it is in the draft."""

    def __init__(self, source: Source, draft: Draft) -> None:
        self.source = source
        self._draft = draft
        self.entries: dict[str, Entry] = {}
        self._read()

    def open(self, entry: Entry) -> Source:
        """An entry's bytes, unpacked where that stays within the bounds. Raises MalformedError."""
        packed = self.source.part(entry.name, entry.start, entry.packed_bytes)
        if entry.method == _STORED:
            return packed
        if entry.method != _DEFLATED:
            raise MalformedError(f"{entry.name} is packed with method {entry.method}, which is not read")
        if entry.size_bytes > UNPACKED_BYTES:
            if entry.size_bytes > entry.packed_bytes * UNPACKED_RATIO:
                self._draft.unsafe("zip-bomb", entry.name, f"{entry.packed_bytes} bytes become {entry.size_bytes}")
            raise MalformedError(f"{entry.name} would unpack to {entry.size_bytes} bytes")
        self._draft.budget.unpack(entry.size_bytes)
        return of_bytes(entry.name, _inflated(packed, entry))

    def named(self, ending: str) -> list[Entry]:
        """Entries whose name ends so, in the archive's order."""
        return [entry for name, entry in self.entries.items() if name.endswith(ending)]

    def _read(self) -> None:
        count, size, offset = self._end()
        if count > ZIP_ENTRIES or size > ZIP_DIRECTORY_BYTES:
            raise MalformedError(f"its directory has {count} entries in {size} bytes, more than are looked at")
        directory = self.source.at(offset, size)
        position = 0
        for _ in range(count):
            self._draft.budget.spend()
            position = self._entry(directory, position)
        self._overlaps()

    def _end(self) -> tuple[int, int, int]:
        """Entries, bytes and place of the directory."""
        start = max(0, self.source.size - _END_BYTES - _COMMENT)
        tail = self.source.at(start, self.source.size - start)
        found = tail.rfind(_END)
        if found < 0 or len(tail) - found < _END_BYTES:
            raise MalformedError("the zip archive has no directory: it was cut")
        count, size, offset, comment = struct.unpack_from("<HIIH", tail, found + 10)
        if comment or found + _END_BYTES != len(tail):
            self._draft.suspicious("zip-end", self.source.name, "has bytes behind its end: loaders may see another one")
        end = start + found
        given = (count, size, offset)
        if end >= 20 and self.source.at(end - 20, 4) == _LOCATOR:
            wide, end = self._end64(end)
            if any(small not in {large, most} for small, large, most in zip(given, wide, _MOST, strict=True)):
                self._contradicts()
            given = wide
        elif given[0] == _MOST[0] or _LONG in given:
            raise MalformedError("the zip archive's 64-bit directory is missing")
        if given[2] + given[1] != end:
            self._contradicts()
        return given

    def _contradicts(self) -> None:
        self._draft.suspicious("zip-end", self.source.name, "has a directory that loaders look for in two places")

    def _end64(self, end: int) -> tuple[tuple[int, int, int], int]:
        """Entries, bytes and place of the directory in 64 bits, and where that is said."""
        (place,) = struct.unpack_from("<Q", self.source.at(end - 20, 20), 8)
        record = self.source.at(place, 56)
        if record[:4] != _END64:
            raise MalformedError("the zip archive's 64-bit directory is missing")
        count, size, offset = struct.unpack_from("<QQQ", record, 32)
        return (count, size, offset), place

    def _entry(self, directory: bytes, position: int) -> int:
        if directory[position : position + 4] != _CENTRAL or len(directory) - position < 46:
            raise MalformedError("the zip archive's directory does not hold what it says")
        flags, method = struct.unpack_from("<HH", directory, position + 8)
        packed, size, names, extras, comments = struct.unpack_from("<IIHHH", directory, position + 20)
        (offset,) = struct.unpack_from("<I", directory, position + 42)
        raw = directory[position + 46 : position + 46 + names]
        extra = directory[position + 46 + names : position + 46 + names + extras]
        size, packed, offset = _wide(extra, size, packed, offset)
        start = self._local(raw, method, offset)
        name = raw.decode("utf-8", "backslashreplace")
        if flags & _ENCRYPTED:
            self._draft.suspicious("zip-encrypted", name, "is marked as encrypted: some loaders ignore the mark")
        if name in self.entries:
            self._draft.suspicious("zip-duplicate", name, "is in the archive twice")
        if name.startswith("/") or ".." in name.split("/") or "\\" in name:
            self._draft.unsafe("zip-path", name, "would be unpacked outside its folder")
        self.source.part(name, start, packed)
        self.entries[name] = Entry(name, method, packed, size, start)
        return position + 46 + int(names) + int(extras) + int(comments)

    def _local(self, raw: bytes, method: int, offset: int) -> int:
        """Where an entry's bytes begin; its own header must agree with the directory."""
        header = self.source.at(offset, 30)
        own_method, names, extras = (*struct.unpack_from("<H", header, 8), *struct.unpack_from("<HH", header, 26))
        own = self.source.at(offset + 30, names)
        if header[:4] != _LOCAL or own != raw or own_method != method:
            shown = raw.decode("utf-8", "backslashreplace")
            self._draft.suspicious("zip-mismatch", shown, "has another header than the directory says")
        return offset + 30 + int(names) + int(extras)

    def _overlaps(self) -> None:
        end = 0
        for entry in sorted(self.entries.values(), key=lambda entry: entry.start):
            if entry.packed_bytes and entry.start < end:
                self._draft.unsafe("zip-overlap", entry.name, "shares its bytes with another entry")
                raise MalformedError("its entries share their bytes, and are not looked at")
            end = max(end, entry.start + entry.packed_bytes)


def _wide(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Sizes and place, from the 64-bit extra field where they did not fit."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        if position + 4 + length > len(extra):
            raise MalformedError("the zip archive's directory does not hold what it says")
        if kind == 1:
            fields = list(struct.unpack(f"<{length // 8}Q", extra[position + 4 : position + 4 + length // 8 * 8]))
            taken = [fields.pop(0) if value == _LONG and fields else value for value in (size, packed, offset)]
            return taken[0], taken[1], taken[2]
        position += 4 + length
    return size, packed, offset


def _inflated(packed: Source, entry: Entry) -> bytes:
    state = zlib.decompressobj(-15)
    try:
        data = state.decompress(packed.at(0, packed.size), entry.size_bytes + 1)
    except zlib.error as error:
        raise MalformedError(f"{entry.name} does not unpack") from error
    if len(data) != entry.size_bytes or state.unconsumed_tail:
        raise MalformedError(f"{entry.name} unpacks to another size than the directory says")
    return data

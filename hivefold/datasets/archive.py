"""A zip archive of stored members whose sizes are known, written as a stream (APPNOTE 6.3, with zip64 where needed).

Checksums are known only once the bytes have passed, so they follow each member (general purpose bit 3).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Final

ZIP64_BYTES: Final = 0xFFFF_FFFF
"""Sizes and offsets from here on are in zip64 fields."""
_FLAGS: Final = 0x0808
"""Checksum follows the member; names are UTF-8."""
_VERSION: Final = 45
_DATE: Final = 0x21
"""1980-01-01: the same input gives the same file."""
_MODE: Final = 0o600 << 16
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_END: Final = struct.Struct("<4s4H2LH")


class StoredArchive:
    """Gives what surrounds the members' bytes. Call `begin`, `add` and `end` for each member in order, then `close`."""

    def __init__(self, members: Sequence[tuple[str, int]]) -> None:
        self._names = [_safe_name(name).encode() for name, _ in members]
        self._sizes = [size for _, size in members]
        self._crcs: list[int] = []
        self._crc = 0
        self._offsets = [0]
        for index, size in enumerate(self._sizes):
            around = len(self._local(index)) + len(self._descriptor(index, 0))
            self._offsets.append(self._offsets[-1] + around + size)
        self.total_bytes = self._offsets[-1] + len(self._directory([0] * len(members)))

    def begin(self, index: int) -> bytes:
        """The header before a member's bytes."""
        self._crc = 0
        return self._local(index)

    def add(self, data: bytes) -> None:
        """Carries the checksum on over the member's next bytes."""
        self._crc = zlib.crc32(data, self._crc)

    def end(self) -> bytes:
        """The descriptor after a member's bytes."""
        self._crcs.append(self._crc)
        return self._descriptor(len(self._crcs) - 1, self._crc)

    def close(self) -> bytes:
        """The directory at the end of the archive."""
        return self._directory(self._crcs)

    def _local(self, index: int) -> bytes:
        size, name = self._sizes[index], self._names[index]
        large = size >= ZIP64_BYTES
        extra = struct.pack("<2H2Q", 1, 16, size, size) if large else b""
        shown = _shown(size)
        return (
            _LOCAL.pack(b"PK\x03\x04", _VERSION, _FLAGS, 0, 0, _DATE, 0, shown, shown, len(name), len(extra))
            + name
            + extra
        )

    def _descriptor(self, index: int, crc: int) -> bytes:
        size = self._sizes[index]
        return struct.pack("<4sL2Q" if size >= ZIP64_BYTES else "<4s3L", b"PK\x07\x08", crc, size, size)

    def _central(self, index: int, crc: int) -> bytes:
        size, offset, name = self._sizes[index], self._offsets[index], self._names[index]
        large = [value for value in (size, size, offset) if value >= ZIP64_BYTES]
        extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        size, offset = _shown(size), _shown(offset)
        return (
            _CENTRAL.pack(
                b"PK\x01\x02",
                *(3 << 8 | _VERSION, _VERSION, _FLAGS, 0, 0, _DATE),
                *(crc, size, size, len(name), len(extra), 0, 0, 0, _MODE, offset),
            )
            + name
            + extra
        )

    def _directory(self, crcs: list[int]) -> bytes:
        start, count = self._offsets[-1], len(self._sizes)
        entries = b"".join(self._central(index, crc) for index, crc in enumerate(crcs))
        end = b""
        if start >= ZIP64_BYTES or len(entries) >= ZIP64_BYTES or count >= 0xFFFF:
            end = _END64.pack(b"PK\x06\x06", 44, 3 << 8 | _VERSION, _VERSION, 0, 0, count, count, len(entries), start)
            end += _LOCATOR.pack(b"PK\x06\x07", 0, start + len(entries), 1)
        shown = min(count, 0xFFFF)
        size, offset = _shown(len(entries)), _shown(start)
        return entries + end + _END.pack(b"PK\x05\x06", 0, 0, shown, shown, size, offset, 0)


def _shown(value: int) -> int:
    """A 32-bit field, or the mark that zip64 fields hold the value."""
    return 0xFFFF_FFFF if value >= ZIP64_BYTES else value


def _safe_name(name: str) -> str:
    """No absolute names and no "..": other tools than NumPy unpack archives into folders."""
    parts = name.replace("\\", "_").split("/")
    return "/".join("_" if part in {"", ".", ".."} else part for part in parts)

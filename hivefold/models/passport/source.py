"""A file or a part of one, read in bounded pieces and never trusted about its size."""

from __future__ import annotations

import io
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hivefold.errors import DataRefusedError, Reason
from hivefold.models.wire import MalformedError


@dataclass(frozen=True, slots=True)
class Source:
    """Bytes [start, end) of a file or of something unpacked. `name` is how people find it."""

    name: str
    data: mmap.mmap | bytes
    start: int
    end: int

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.end - self.start

    def at(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`. Raises MalformedError where the source does not have them."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise MalformedError(f"it ends before byte {offset + size}")
        return self.data[self.start + offset : self.start + offset + size]

    def head(self, size: int) -> bytes:
        """The first bytes, at most `size`."""
        return self.data[self.start : min(self.end, self.start + size)]

    def find(self, needle: bytes, start: int, end: int) -> int:
        """Where `needle` first lies in [start, end), or -1."""
        found = self.data.find(needle, self.start + max(0, start), self.start + min(end, self.size))
        return found - self.start if found >= 0 else -1

    def part(self, name: str, offset: int, size: int) -> Source:
        """A range of it. Raises MalformedError where the source does not have it."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise MalformedError(f"{name} lies outside the file")
        return Source(name, self.data, self.start + offset, self.start + offset + size)

    def integer(self, offset: int, size: int) -> int:
        """A little-endian unsigned integer of `size` bytes. Raises MalformedError."""
        return int.from_bytes(self.at(offset, size), "little")


def of_bytes(name: str, data: bytes) -> Source:
    """Something that was unpacked."""
    return Source(name, data, 0, len(data))


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """A regular file, mapped read-only. Raises DataRefusedError with FILE_UNREADABLE."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise unreadable(path, getattr(error, "strerror", None) or str(error)) from error
    with io.FileIO(descriptor) as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise unreadable(path, "it is neither a file nor a folder")
        if not facts.st_size:
            yield Source(path.name, b"", 0, 0)
            return
        with mmap.mmap(file.fileno(), facts.st_size, access=mmap.ACCESS_READ) as data:
            yield Source(path.name, data, 0, facts.st_size)


def unreadable(path: Path, why: str) -> DataRefusedError:
    """The refusal of a path that cannot be read."""
    return DataRefusedError(
        f"{path} cannot be read: {why}. Check the path and its permissions.",
        reason=Reason.FILE_UNREADABLE,
        metadata={"path": str(path)},
    )

"""Batches on disk until the broker has them: what is there outlives the process, whatever ends it."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Final, NamedTuple

from hivefold.oip.limits import AUDIT_SPOOL_BYTES

_PARTIAL: Final = ".partial"


class Kept(NamedTuple):
    """A batch on disk."""

    path: Path
    size_bytes: int

    @property
    def boot_id(self) -> str:
        """The boot that made it."""
        return self.path.name.rpartition(".")[0]

    @property
    def number(self) -> int:
        """Its number in that boot."""
        return int(self.path.name.rpartition(".")[2])


class Spool:
    """Files named <boot>.<number>, oldest first. Only `write` blocks on the disk: it may run in a thread."""

    def __init__(self, directory: Path) -> None:
        """Opens what earlier boots left: by name they are in their order, for boots sort by time. Raises OSError."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self._waiting: deque[Kept] = deque()
        self._bytes = 0
        for path in sorted(directory.iterdir()):
            if path.suffix == _PARTIAL:
                path.unlink(missing_ok=True)
            elif path.name.rpartition(".")[2].isdecimal():
                self.add(Kept(path, path.stat().st_size))

    @property
    def first(self) -> Kept | None:
        """The oldest that waits."""
        return self._waiting[0] if self._waiting else None

    @property
    def full(self) -> bool:
        """Whether there is no room for another."""
        return self._bytes >= AUDIT_SPOOL_BYTES

    def write(self, boot_id: str, number: int, data: bytes) -> Kept:
        """Puts a batch on disk, whole or not at all. It outlives this process, not the machine. Raises OSError."""
        path = self.directory / f"{boot_id}.{number:012d}"
        partial = path.with_name(path.name + _PARTIAL)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        partial.replace(path)
        return Kept(path, len(data))

    def add(self, kept: Kept) -> None:
        """A batch that was written waits."""
        self._waiting.append(kept)
        self._bytes += kept.size_bytes

    def pop(self) -> Kept:
        """Takes the oldest out; its file is the caller's to remove. There MUST be one."""
        kept = self._waiting.popleft()
        self._bytes -= kept.size_bytes
        return kept

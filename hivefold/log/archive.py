"""Closed segments as log files in a directory (docs/log-format.md), for when they are no longer on the broker."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hivefold.errors import SegmentMissingError
from hivefold.log.port import Stored

_NAME: Final = re.compile(r"(\d{16})-(\d{16})\.hflog")


@dataclass(frozen=True, slots=True)
class ArchivedSegment:
    """A file that holds the records from `first` to `last`."""

    path: Path
    first: int
    last: int


class Archive:
    """The files of a directory; None for a log without one."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    @property
    def directory(self) -> Path | None:
        """Where the files are."""
        return self._directory

    def files(self) -> Sequence[ArchivedSegment]:
        """All of them, in order. Looks at their names only."""
        if self._directory is None or not self._directory.is_dir():
            return ()
        names = ((path, _NAME.fullmatch(path.name)) for path in sorted(self._directory.iterdir()))
        return [ArchivedSegment(path, int(found[1]), int(found[2])) for path, found in names if found]

    def path_of(self, first: int, last: int) -> Path:
        """The file of a segment. MUST NOT be called without a directory."""
        assert self._directory is not None
        return self._directory / f"{first:016d}-{last:016d}.hflog"

    async def read(self, *, after: int, up_to: int) -> AsyncIterator[Sequence[Stored]]:
        """As EventLog.read, to the end of what a file holds or `up_to`, whichever comes first.

        Raises SegmentMissingError where no file holds the record after `after`, LogFileInvalidError, OSError.
        """
        position = after + 1
        found = next((file for file in self.files() if file.first <= position <= file.last), None)
        if found is None:
            where = f"in {self._directory}" if self._directory is not None else "set archive_dir to where its files are"
            raise SegmentMissingError(
                f"record {position} is in a segment that is neither on the broker nor {where}: "
                "bring its file there from a copy",
                position=position,
            )
        from hivefold.log.file import LogFileReader  # the protobufs of files only where there are files

        with LogFileReader(found.path) as reader:
            async for page in reader.read(after=after, up_to=min(up_to, found.last)):
                yield page

"""Where the simulated fleet archives closed segments: real files, in a directory of the run, on a disk that fills."""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path

from hivefold.log.archive import Archive

_IN_MEMORY = Path("/dev/shm")


class SimArchive(Archive):
    """The directory that all coordinators of one run share. It is made when the first file is written."""

    def __init__(self) -> None:
        super().__init__(None)
        self.full = False
        self._made: Path | None = None

    @property
    def directory(self) -> Path | None:
        """Where the files are."""
        return self._made

    def path_of(self, first: int, last: int) -> Path:
        """The file of a segment. Raises OSError while the disk is full."""
        if self.full:
            raise OSError(errno.ENOSPC, "no space left on the archive's disk")
        if self._directory is None:
            place = _IN_MEMORY if _IN_MEMORY.is_dir() else None
            self._made = self._directory = Path(tempfile.mkdtemp(prefix="hivefold-sim-", dir=place))
        return super().path_of(first, last)

    def remove(self) -> None:
        """Removes the directory."""
        if self._made is not None:
            shutil.rmtree(self._made)

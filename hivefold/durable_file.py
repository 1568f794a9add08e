"""Files that appear under their name whole and durable, or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from hivefold.errors import ConflictError, Reason
from hivefold.limits import DURABLE_FILE_BUFFER_BYTES


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable. Raises OSError."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class DurableFile:
    """A file to write; a context manager. It gets its name, synced to disk, when the block ends well.

    Only its owner may read it. Raises ConflictError when the name is taken and `replace` is not given, OSError.
    """

    def __init__(self, path: Path, *, replace: bool = False) -> None:
        if not replace and path.exists():
            raise ConflictError(
                f"{path} exists; give another name, or replace it with --force", reason=Reason.INVALID_ARGUMENT
            )
        self._path = path

    def open(self) -> None:
        """Begins to write, under another name beside it."""
        fd, name = tempfile.mkstemp(prefix=f".{self._path.name}.", suffix=".partial", dir=self._path.parent)
        self._temporary = Path(name)
        self._file = os.fdopen(fd, "wb", buffering=DURABLE_FILE_BUFFER_BYTES)

    def write(self, data: bytes | bytearray) -> None:
        """Adds bytes."""
        self._file.write(data)

    def commit(self) -> None:
        """Gives the file its name, with all that was written on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._temporary.replace(self._path)
        sync_directory(self._path.parent)

    def discard(self) -> None:
        """Closes the file; what was not committed is gone."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.commit()
        finally:
            self.discard()

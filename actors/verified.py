"""A model file as a runtime gets it: opened once, verified, read-only, alone in an empty folder."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from hivefold.errors import DataRefusedError, Reason

_LINK: Final = "model.onnx"


@contextmanager
def verified(path: Path, digest: str) -> Iterator[Path]:
    """A path to the file's own descriptor, the only entry of a folder that nobody can write to.

    What was hashed is what is read, whatever happens to `path` meanwhile; a runtime that looks beside
    the model finds nothing. Raises DataRefusedError: FILE_UNREADABLE; DIGEST_MISMATCH where the SHA-256
    is not `digest`, the file has a second name, or it changed before the block ended.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(path, error) from error
    with os.fdopen(descriptor, "rb") as file, TemporaryDirectory(prefix="hivefold-load-") as folder:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode) or before.st_nlink != 1:
            raise _mismatch(digest, "is no file of its own")
        try:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _unreadable(path, error) from error
        if found != digest:
            raise _mismatch(digest, "has other bytes than its digest says")
        link = Path(folder, _LINK)
        link.symlink_to(f"/dev/fd/{descriptor}")
        Path(folder).chmod(0o500)
        try:
            yield link
        finally:
            Path(folder).chmod(0o700)
        after = os.fstat(descriptor)
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise _mismatch(digest, "was changed while it was loaded")


def _unreadable(path: Path, error: OSError) -> DataRefusedError:
    return DataRefusedError(
        f"{path.name} cannot be read: {error.strerror or error}; it is fetched again on the next attempt",
        reason=Reason.FILE_UNREADABLE,
    )


def _mismatch(digest: str, why: str) -> DataRefusedError:
    return DataRefusedError(
        f"the stored model {digest[:12]} {why}; it is fetched again",
        reason=Reason.DIGEST_MISMATCH,
        metadata={"digest": digest},
    )

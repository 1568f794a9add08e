"""Reads ranges of files that nodes share, and verifies them. An actor, for reading and hashing take time."""

from __future__ import annotations

from dataclasses import dataclass, field

from hivefold.blobs.files import verified_file_range
from hivefold.blobs.manifest import Manifest


@dataclass(frozen=True, slots=True)
class ReadRange:
    """Read `size` bytes at `offset` of the file at `path`, whose content `manifest` describes, into `buffer`.

    The buffer has the size that hivefold.blobs.files.room_for_range says; the reader has it until it answers.
    """

    path: str
    manifest: Manifest
    offset: int
    size: int
    buffer: bytearray
    secret: bytes = field(default=b"", repr=False)
    """The key that the manifest names, if it names one."""


class ReaderBehavior:
    """Reads one range at a time."""

    def start(self) -> None:
        """Nothing."""

    def receive(self, message: ReadRange) -> memoryview:
        """The bytes. Raises DataRefusedError (FILE_UNREADABLE, DIGEST_MISMATCH, JOB_ERASED), InvalidRequestError."""
        return verified_file_range(
            message.path, message.manifest, message.offset, message.size, message.buffer, secret=message.secret
        )

    def stop(self) -> None:
        """Nothing."""

"""Reads ranges of files that nodes share and verifies what it read. An actor, for reading and hashing take time."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from io import FileIO
from typing import Final

from hivefold.errors import DataRefusedError, Reason

_DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class ReadRange:
    """Read `size` bytes at `offset` of the file at `path`.

    The whole file has `total_bytes` in chunks of `chunk_bytes`; `chunk_digests` are the SHA-256 of
    each, 32 bytes one after the other.
    """

    path: str
    offset: int
    size: int
    total_bytes: int
    chunk_bytes: int
    chunk_digests: bytes


class ReaderBehavior:
    """Keeps the last file open, for the shards of a job follow each other."""

    def __init__(self) -> None:
        self._path = ""
        self._file: FileIO | None = None

    def start(self) -> None:
        """Nothing."""

    def receive(self, message: ReadRange) -> memoryview:
        """The bytes of the range. Raises DataRefusedError: FILE_UNREADABLE, DATA_INVALID, DIGEST_MISMATCH."""
        if message.offset < 0 or message.size < 1 or message.offset + message.size > message.total_bytes:
            raise DataRefusedError(
                f"bytes {message.offset} to {message.offset + message.size} lie outside {message.path} of "
                f"{message.total_bytes} bytes; the data set does not match its description",
                reason=Reason.DATA_INVALID,
            )
        first = message.offset // message.chunk_bytes
        start = first * message.chunk_bytes
        end = -(-(message.offset + message.size) // message.chunk_bytes) * message.chunk_bytes
        data = memoryview(bytearray(min(end, message.total_bytes) - start))
        self._read(message.path, start, data)
        self._verify(message, first, data)
        return data[message.offset - start :][: message.size]

    def stop(self) -> None:
        """Closes the file."""
        file, self._file, self._path = self._file, None, ""
        if file is not None:
            file.close()

    def _read(self, path: str, start: int, into: memoryview) -> None:
        try:
            file = self._opened(path)
            file.seek(start)
            done = 0
            while done < len(into):
                count = file.readinto(into[done:])
                if not count:
                    break
                done += count
        except OSError as error:
            self.stop()
            raise DataRefusedError(
                f"{path} cannot be read on this node: {error.strerror or error}; "
                "mount it on every node, or submit the data instead of a path",
                reason=Reason.FILE_UNREADABLE,
                metadata={"path": path},
            ) from error
        if done < len(into):
            self.stop()
            raise DataRefusedError(
                f"{path} ends {len(into) - done} bytes early on this node; it was changed after the job was submitted",
                reason=Reason.DIGEST_MISMATCH,
                metadata={"path": path},
            )

    def _opened(self, path: str) -> FileIO:
        if self._file is None or self._path != path:
            self.stop()
            self._file, self._path = FileIO(path, "rb"), path
        return self._file

    def _verify(self, message: ReadRange, first: int, data: memoryview) -> None:
        for index, start in enumerate(range(0, len(data), message.chunk_bytes), first):
            digest = message.chunk_digests[index * _DIGEST_BYTES : (index + 1) * _DIGEST_BYTES]
            if sha256(data[start : start + message.chunk_bytes]).digest() != digest:
                self.stop()  # the path may lead to another file by now
                raise DataRefusedError(
                    f"{message.path} holds other bytes on this node than when the job was submitted "
                    f"(chunk {index}); submit the job again for the changed file",
                    reason=Reason.DIGEST_MISMATCH,
                    metadata={"path": message.path, "chunk": str(index)},
                )

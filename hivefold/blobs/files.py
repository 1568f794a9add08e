"""Content that stays in a file: its manifest, and ranges verified against it. Blocking; for threads."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from hivefold.blobs.manifest import DIGEST_BYTES, Manifest
from hivefold.errors import DataRefusedError, Reason
from hivefold.limits import HASH_THREADS, PLAIN_CHUNK_BYTES


def manifest_of_file(path: Path | str) -> Manifest:
    """The manifest of a file, hashed by as many threads as there are cores (hashing releases the GIL).

    Blocks: call it in a thread. Raises DataRefusedError (FILE_UNREADABLE, or DATA_INVALID when the
    file changes meanwhile), LimitExceededError.
    """
    with _opened(path) as descriptor:
        before = os.fstat(descriptor)
        count = -(-before.st_size // PLAIN_CHUNK_BYTES)
        digests = bytearray(count * DIGEST_BYTES)
        workers = max(1, min(HASH_THREADS, os.cpu_count() or 1, count))

        def hash_stripe(first: int) -> None:
            for index in range(first, count, workers):
                chunk = os.pread(descriptor, PLAIN_CHUNK_BYTES, index * PLAIN_CHUNK_BYTES)
                digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES] = hashlib.sha256(chunk).digest()

        with ThreadPoolExecutor(workers, thread_name_prefix="hash") as pool:
            list(pool.map(hash_stripe, range(workers)))
        after = os.fstat(descriptor)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataRefusedError(f"{path} changed while it was read; submit it once it is complete")
    return Manifest(before.st_size, PLAIN_CHUNK_BYTES, bytes(digests))


def room_for_range(manifest: Manifest, length: int) -> int:
    """Bytes of the buffer that verified_file_range needs at most: the chunks that a range of `length` bytes touches."""
    return min(length + 2 * manifest.chunk_size_bytes, manifest.size_bytes)


def verified_file_range(
    path: Path | str,
    manifest: Manifest,
    offset: int,
    length: int,
    buffer: bytearray | None = None,
    *,
    secret: bytes = b"",
) -> memoryview:
    """The bytes [offset, offset + length) of a file, read-only, after checking every chunk that they touch.

    They lie in `buffer` (of room_for_range bytes), where one is given. `secret` is the key that the manifest names.
    Blocks: call it in a thread. Raises InvalidRequestError outside the content, DataRefusedError (FILE_UNREADABLE,
    DIGEST_MISMATCH naming the chunk, JOB_ERASED without the key).
    """
    spans = list(manifest.spans(offset, length))
    if not spans:
        return memoryview(b"")
    first, last = spans[0].index, spans[-1].index
    start = first * manifest.chunk_size_bytes
    end = last * manifest.chunk_size_bytes + manifest.chunk_length(last)
    room = memoryview(bytearray(end - start) if buffer is None else buffer)
    with _opened(path) as descriptor:
        for span in spans:
            at = span.index * manifest.chunk_size_bytes - start
            chunk = room[at : at + manifest.chunk_length(span.index)]
            manifest.check_file(span.index, chunk[: _read_into(descriptor, chunk, start + at)], secret)
    return room[offset - start : offset - start + length].toreadonly()


def _read_into(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Fills the buffer; the number of bytes that the file had."""
    filled = 0
    while filled < len(buffer) and (count := os.preadv(descriptor, [buffer[filled:]], offset + filled)):
        filled += count
    return filled


@contextmanager
def _opened(path: Path | str) -> Iterator[int]:
    try:
        # Not waiting for the other end of a pipe: it is refused below.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _unreadable(path, "it is not a regular file")
        yield descriptor
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(descriptor)


def _unreadable(path: Path | str, why: object) -> DataRefusedError:
    return DataRefusedError(
        f"cannot read {path}: {why}; check that it exists on this machine and that this user may read it",
        reason=Reason.FILE_UNREADABLE,
        metadata={"path": str(path)},
    )

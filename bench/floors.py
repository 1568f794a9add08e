"""Physical floors: what the disk and a bare RPC take, whatever is built on them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

_RECORD_BYTES: Final = 200


def fsyncs(folder: Path, count: int) -> list[float]:
    """Milliseconds that each of `count` appends of 200 bytes with fsync takes, one after another."""
    path = folder / "fsync"
    record = os.urandom(_RECORD_BYTES)
    times = []
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in range(count):
            began = time.perf_counter()
            os.write(file, record)
            os.fsync(file)
            times.append(1000 * (time.perf_counter() - began))
    finally:
        os.close(file)
        path.unlink()
    return times


def writes(folder: Path, size_bytes: int, *, chunk_bytes: int) -> float:
    """Bytes a second at which the disk takes a large file with an fsync after each chunk."""
    path = folder / "write"
    chunk = os.urandom(chunk_bytes)
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(size_bytes // chunk_bytes):
            file.write(chunk)
            os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    path.unlink()
    return size_bytes / seconds

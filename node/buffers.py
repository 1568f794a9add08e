"""Memory for the rows of attempts, used again and again: new memory costs more than what is read into it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from hivefold.limits import BUFFERS_KEPT_S, CHUNK_BYTES

_STEP_BYTES = CHUNK_BYTES
"""Buffers are whole steps long, so that attempts of nearly equal size share them."""


class RowBuffers:
    """Lends buffers; keeps at most `most` that nobody uses, and none once nothing was lent for BUFFERS_KEPT_S."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._free: list[bytearray] = []
        self._lent = 0
        self._taken = 0

    @contextmanager
    def lent(self, size_bytes: int) -> Iterator[bytearray]:
        """A buffer of at least that size, its content undefined.

        It is lent to others only after a block that ended well: after a failure or a cancellation a thread
        may still use it.
        """
        buffer = self._take(size_bytes)
        try:
            yield buffer
            self._free.append(buffer)
            del self._free[: -self._most]
        finally:
            self._lent -= 1
            if not self._lent:
                asyncio.get_running_loop().call_later(BUFFERS_KEPT_S, self._forget, self._taken)

    def _take(self, size_bytes: int) -> bytearray:
        self._lent += 1
        self._taken += 1
        for at, buffer in enumerate(self._free):
            if len(buffer) >= size_bytes:
                return self._free.pop(at)
        return bytearray(-(-size_bytes // _STEP_BYTES) * _STEP_BYTES)

    def _forget(self, taken: int) -> None:
        if taken == self._taken:
            self._free.clear()

"""Chunks on the stream HF_BLOBS: one message a chunk, stored once, read by direct get.

nats-py's object store reads at 6.6 MB/s (quadratic); this reads at the speed of the socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from hivefold.bus import api, frames, streams
from hivefold.bus.link import Link, NoRespondersError
from hivefold.errors import BrokerUnavailableError, LimitExceededError, NotFoundError
from hivefold.limits import BLOB_ANSWER_S, BLOB_PATIENCE_S, BROKER_RETRY_MAX_MS, STORED_CHUNK_BYTES

_NEW_ONLY: Final = frames.header_block({api.EXPECT_NEW: "0"})
_RETRY_S: Final = BROKER_RETRY_MAX_MS / 4000
_Answer = TypeVar("_Answer")


class JetStreamChunks:
    """hivefold.blobs.port.ChunkStore. Calls go on through reconnects for BLOB_PATIENCE_S: repeats are harmless."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def put(self, key: str, data: bytes) -> None:
        """Stores `data` under `key` durably; a stored key is left as it is.

        Raises LimitExceededError when the stream is full, BrokerUnavailableError.
        """
        if len(data) > STORED_CHUNK_BYTES:
            raise LimitExceededError(f"{key} has {len(data)} bytes; store at most {STORED_CHUNK_BYTES} under one key")
        await _patiently(lambda: self._put(key, data))

    async def get(self, key: str) -> bytes:
        """The bytes stored under `key`. Raises NotFoundError, BrokerUnavailableError."""
        try:
            message = await _patiently(lambda: api.last_on(self._link, streams.BLOBS, f"blob.{key}", BLOB_ANSWER_S))
        except NotFoundError:
            raise NotFoundError(f"{key} is not stored; upload its content first") from None
        return message.data

    async def has(self, key: str) -> bool:
        """Whether `key` is stored. Raises BrokerUnavailableError.

        Reads it whole, for that needs no more rights than get.
        """
        try:
            await self.get(key)
        except NotFoundError:
            return False
        return True

    async def delete(self, key: str) -> None:
        """Removes `key` for good, if it is stored. Only a coordinator may. Raises BrokerUnavailableError."""
        body = {"filter": f"blob.{key}"}
        await _patiently(lambda: api.call(self._link, f"STREAM.PURGE.{streams.BLOBS}", body))

    async def _put(self, key: str, data: bytes) -> None:
        try:
            await api.store(self._link, f"blob.{key}", data, headers=_NEW_ONLY, timeout_s=BLOB_ANSWER_S)
        except api.ApiError as error:
            if error.code == api.WRONG_LAST:
                return
            if error.code in api.STORAGE_SHORT:
                raise LimitExceededError(
                    f"no room for {key}: {error.description}; remove blobs or raise the server's max_file"
                ) from None
            raise BrokerUnavailableError(f"{key} was not stored: {error.description}; try again") from None


async def _patiently(attempt: Callable[[], Awaitable[_Answer]]) -> _Answer:
    loop = asyncio.get_running_loop()
    until = loop.time() + BLOB_PATIENCE_S
    while True:
        try:
            return await attempt()
        except NoRespondersError:
            raise
        except BrokerUnavailableError:
            if loop.time() >= until:
                raise
            await asyncio.sleep(_RETRY_S)

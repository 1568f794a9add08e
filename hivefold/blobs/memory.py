"""Chunks in memory, for tests and the simulation."""

from __future__ import annotations

from hivefold.errors import LimitExceededError, NotFoundError
from hivefold.limits import STORED_CHUNK_BYTES


class MemoryChunks:
    """hivefold.blobs.port.ChunkStore. `chunks` may be altered: what reads them has to notice."""

    def __init__(self, capacity_bytes: int = 1 << 40) -> None:
        self.chunks: dict[str, bytes] = {}
        self.capacity_bytes = capacity_bytes

    async def put(self, key: str, data: bytes) -> None:
        """Stores `data` under `key`; a stored key is left as it is. Raises LimitExceededError."""
        if len(data) > STORED_CHUNK_BYTES:
            raise LimitExceededError(f"{key} has {len(data)} bytes; store at most {STORED_CHUNK_BYTES} under one key")
        if key in self.chunks:
            return
        if sum(map(len, self.chunks.values())) + len(data) > self.capacity_bytes:
            raise LimitExceededError("the chunk store is full; remove content or raise its capacity")
        self.chunks[key] = bytes(data)

    async def get(self, key: str) -> bytes:
        """The bytes stored under `key`. Raises NotFoundError."""
        try:
            return self.chunks[key]
        except KeyError:
            raise NotFoundError(f"{key} is not stored; upload its content first") from None

    async def has(self, key: str) -> bool:
        """Whether `key` is stored."""
        return key in self.chunks

    async def delete(self, key: str) -> None:
        """Removes `key`, if it is stored."""
        self.chunks.pop(key, None)

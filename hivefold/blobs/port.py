"""Content-addressed chunks, as adapters store them."""

from __future__ import annotations

from typing import Protocol


class ChunkStore(Protocol):
    """Stores immutable chunks by digest. Verification is the caller's (hivefold.blobs.content)."""

    async def put(self, key: str, data: bytes) -> None:
        """Stores `data` (at most STORED_CHUNK_BYTES) under `key` durably; a stored key is left as it is.

        `key` is "chunk.<digest>" or "manifest.<root>.<part>". Raises LimitExceededError when the
        store is full, BrokerUnavailableError.
        """
        ...

    async def get(self, key: str) -> bytes:
        """The bytes stored under `key`. Raises NotFoundError, BrokerUnavailableError."""
        ...

    async def has(self, key: str) -> bool:
        """Whether `key` is stored."""
        ...

    async def delete(self, key: str) -> None:
        """Removes `key` for good, if it is stored. Only a coordinator may. Raises BrokerUnavailableError."""
        ...

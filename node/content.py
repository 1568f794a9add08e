"""What a node needs of the fleet's stored content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Manifest:
    """The chunks behind a root: SHA-256 of each, 32 bytes one after the other."""

    size_bytes: int
    chunk_bytes: int
    chunk_digests: bytes


class Content(Protocol):
    """Verified content by root digest. Errors are NotFoundError, DataRefusedError, BrokerUnavailableError."""

    async def manifest(self, root: str) -> Manifest:
        """The manifest, verified against its root."""
        ...

    async def read(self, root: str, offset: int, size: int) -> bytes | bytearray | memoryview:
        """A range of the content, verified."""
        ...

    async def store(self, data: bytes | bytearray) -> str:
        """Stores content and gives its root."""
        ...

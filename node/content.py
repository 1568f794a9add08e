"""The fleet's stored content as a node uses it: ranges of few blobs, again and again."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from hivefold.blobs.content import get_manifest, read_into, stream_range, upload_bytes
from hivefold.blobs.manifest import Manifest
from hivefold.blobs.port import ChunkStore
from hivefold.blobs.sealing import DataKey
from hivefold.limits import MANIFESTS_KEPT
from hivefold.v1.blob_pb2 import BlobRef


class Content:
    """Reads and stores content; the manifests used last stay at hand.

    Raises NotFoundError, DataRefusedError, InvalidRequestError, BrokerUnavailableError.
    """

    def __init__(self, chunks: ChunkStore) -> None:
        self._chunks = chunks
        self._manifests: dict[str, Manifest] = {}

    async def manifest(self, root: str) -> Manifest:
        """The manifest, verified against its root."""
        manifest = self._manifests.pop(root, None) or await get_manifest(self._chunks, root)
        self._manifests[root] = manifest
        if len(self._manifests) > MANIFESTS_KEPT:
            del self._manifests[next(iter(self._manifests))]
        return manifest

    async def read_into(self, root: str, offset: int, target: memoryview, secret: bytes = b"") -> None:
        """Fills `target` with the content from `offset` on, verified and, where it is sealed, opened with `secret`.

        Raises DataRefusedError (JOB_ERASED) too, where it takes a key and there is none.
        """
        manifest = await self.manifest(root)
        key = DataKey(manifest.key_id, secret) if secret else None
        await read_into(self._chunks, manifest, offset, target, key)

    async def stream(self, root: str, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """The content from `offset` on, in order, verified, many chunks under way at once."""
        manifest = await self.manifest(root)
        async with aclosing(stream_range(self._chunks, manifest, offset, manifest.size_bytes - offset)) as pieces:
            async for piece in pieces:
                yield piece

    async def store(self, data: bytes, key: DataKey | None = None) -> BlobRef:
        """Stores content that is in memory, sealed with `key`."""
        return await upload_bytes(self._chunks, data, key)

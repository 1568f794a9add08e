"""BlobService: content in and out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from coordinator.servicers import checking
from coordinator.servicers.backing import Backing
from hivefold.blobs import content
from hivefold.blobs.manifest import Manifest
from hivefold.blobs.sealing import data_key_id
from hivefold.errors import InvalidRequestError
from hivefold.v1 import blob_service_pb2 as pb
from hivefold.v1.blob_service_pb2_grpc import BlobServiceServicer


class BlobServicer(BlobServiceServicer):
    """hivefold.v1.BlobService."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    async def UploadBlob(self, request_iterator: Any, context: Any) -> pb.UploadBlobResponse:
        """Stores content as it comes, sealed; memory stays bounded by the chunks under way."""
        first = await anext(aiter(request_iterator), pb.UploadBlobRequest())
        size_bytes = first.size_bytes or None
        request_id = first.request_id or self._backing.entropy.draw(16).hex()
        checking.refuse(checking.request_id(request_id))
        key = await self._backing.job_keys.store.obtain(data_key_id(request_id))
        blob = await content.upload(
            self._backing.chunks, _pieces(first, request_iterator), size_bytes=size_bytes, key=key
        )
        return pb.UploadBlobResponse(blob=blob)

    async def RegisterManifest(self, request: pb.RegisterManifestRequest, context: Any) -> pb.RegisterManifestResponse:
        """Stores the manifest of content that stays where it is, with keyed digests: no guess fits them."""
        checking.refuse(checking.request_id(request.request_id))
        if request.manifest.key_id:
            raise InvalidRequestError("manifest.key_id: content that stays where it is is not sealed; leave it empty")
        manifest = Manifest.from_wire(request.manifest)
        key = await self._backing.job_keys.store.obtain(data_key_id(request.request_id))
        keyed = await asyncio.to_thread(manifest.keyed, key.key_id, key.secret)
        blob = await content.put_manifest(self._backing.chunks, keyed)
        return pb.RegisterManifestResponse(blob=blob)

    async def DownloadBlob(
        self, request: pb.DownloadBlobRequest, context: Any
    ) -> AsyncIterator[pb.DownloadBlobResponse]:
        """Streams content, verified."""
        checking.refuse(checking.digest("root", request.root))
        async with aclosing(
            content.read_all(self._backing.chunks, request.root, self._backing.job_keys.store.get)
        ) as pieces:
            async for piece in pieces:
                yield pb.DownloadBlobResponse(data=piece)


async def _pieces(first: pb.UploadBlobRequest, rest: AsyncIterator[pb.UploadBlobRequest]) -> AsyncIterator[bytes]:
    yield _piece(first)
    async for request in rest:
        yield _piece(request)


def _piece(request: pb.UploadBlobRequest) -> bytes:
    data = request.data  # each look at the field copies it
    checking.refuse(checking.piece("data", data))
    return data

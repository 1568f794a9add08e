"""BlobService: content in and out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from coordinator.servicers import checking
from coordinator.servicers.backing import Backing
from hivefold.blobs import content
from hivefold.blobs.manifest import Manifest
from hivefold.v1 import blob_service_pb2 as pb
from hivefold.v1.blob_service_pb2_grpc import BlobServiceServicer


class BlobServicer(BlobServiceServicer):
    """hivefold.v1.BlobService."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    async def UploadBlob(self, request_iterator: Any, context: Any) -> pb.UploadBlobResponse:
        """Stores content as it comes; memory stays bounded by the chunks under way."""
        first = await anext(aiter(request_iterator), pb.UploadBlobRequest())
        size_bytes = first.size_bytes or None
        blob = await content.upload(self._backing.chunks, _pieces(first, request_iterator), size_bytes=size_bytes)
        return pb.UploadBlobResponse(blob=blob)

    async def RegisterManifest(self, request: pb.RegisterManifestRequest, context: Any) -> pb.RegisterManifestResponse:
        """Stores the manifest of content that stays where it is."""
        checking.refuse(checking.request_id(request.request_id))
        blob = await content.put_manifest(self._backing.chunks, Manifest.from_wire(request.manifest))
        return pb.RegisterManifestResponse(blob=blob)

    async def DownloadBlob(
        self, request: pb.DownloadBlobRequest, context: Any
    ) -> AsyncIterator[pb.DownloadBlobResponse]:
        """Streams content, verified."""
        checking.refuse(checking.digest("root", request.root))
        async with aclosing(content.read_all(self._backing.chunks, request.root)) as pieces:
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

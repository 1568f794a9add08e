"""Stored content."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from hivefold import limits
from hivefold.blobs.files import manifest_of_file
from hivefold.client.connection import Connection
from hivefold.client.request_ids import new_request_id
from hivefold.client.sending import Progress, send, told
from hivefold.v1 import blob_pb2, blob_service_pb2
from hivefold.v1.blob_service_pb2_grpc import BlobServiceStub


class Blobs:
    """Uploads and downloads of content by its root digest."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def upload(
        self,
        pieces: Callable[[], Iterator[bytes]],
        size_bytes: int,
        request_id: str = "",
        *,
        on_progress: Progress | None = None,
    ) -> blob_pb2.BlobRef:
        """Stores the content that the pieces (each at most STREAM_PIECE_BYTES) make up, sealed; constant memory.

        `pieces` is called again, and MUST give the same, where another coordinator leads meanwhile. The same content
        under the same `request_id` has the same root; without one each upload has its own. `on_progress` gets the
        bytes sent and the bytes in all, in a worker thread.
        """
        request_id = request_id or new_request_id()
        response = await send(
            self._connection,
            BlobServiceStub,
            "UploadBlob",
            lambda: _upload_requests(told(pieces(), size_bytes, on_progress), size_bytes, request_id),
        )
        blob: blob_pb2.BlobRef = response.blob
        return blob

    async def register_file(self, path: Path, request_id: str = "") -> blob_pb2.BlobRef:
        """Stores the manifest of a file that stays where it is: every node must be able to read it there.

        The same file under the same `request_id` has the same root; without one it has its own each time. Raises
        DataRefusedError when it cannot be read.
        """
        manifest = await asyncio.to_thread(manifest_of_file, path)
        request = blob_service_pb2.RegisterManifestRequest(
            request_id=request_id or new_request_id(), manifest=manifest.to_wire()
        )
        response = await self._connection.call(BlobServiceStub, "RegisterManifest", request)
        blob: blob_pb2.BlobRef = response.blob
        return blob

    async def download(self, root: str) -> AsyncIterator[bytes]:
        """The content in pieces. Raises NotFoundError."""
        request = blob_service_pb2.DownloadBlobRequest(root=root)
        async for response in self._connection.stream(
            BlobServiceStub, "DownloadBlob", request, limits.TRANSFER_DEADLINE_S
        ):
            yield response.data


async def _upload_requests(
    pieces: Iterator[bytes], size_bytes: int, request_id: str
) -> AsyncIterator[blob_service_pb2.UploadBlobRequest]:
    request = blob_service_pb2.UploadBlobRequest(size_bytes=size_bytes, request_id=request_id)
    # Reading and converting may block: off the event loop, one piece ahead of what is being sent.
    following = asyncio.create_task(asyncio.to_thread(next, pieces, b""))
    try:
        while piece := await following:
            following = asyncio.create_task(asyncio.to_thread(next, pieces, b""))
            request.data = piece
            yield request
            request = blob_service_pb2.UploadBlobRequest()
        if request.size_bytes:
            yield request
    finally:
        following.cancel()

"""Registered models."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from hivefold import limits
from hivefold.client.connection import Connection
from hivefold.client.paging import pages
from hivefold.client.request_ids import new_request_id
from hivefold.client.sending import send
from hivefold.errors import DataRefusedError, Reason
from hivefold.v1 import model_pb2, model_service_pb2
from hivefold.v1.model_service_pb2_grpc import ModelServiceStub


class Models:
    """Model versions: add, get, list."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(
        self, path: Path | str, name: str, *, labels: Mapping[str, str] | None = None, request_id: str = ""
    ) -> model_pb2.Model:
        """Registers a model file under `name`; the same content again gives the version that is there.

        Raises DataRefusedError when it cannot be read or is no acceptable model.
        """
        path = Path(path)
        digest, size_bytes = await asyncio.to_thread(_digest, path)
        header = model_service_pb2.UploadModelHeader(
            request_id=request_id or new_request_id(),
            name=name,
            digest=digest,
            size_bytes=size_bytes,
            labels=dict(labels or {}),
        )
        response = await send(self._connection, ModelServiceStub, "UploadModel", lambda: _upload_requests(header, path))
        model: model_pb2.Model = response.model
        return model

    async def get(self, model: str) -> model_pb2.Model:
        """One version, by "name" (the latest) or "name@version". Raises NotFoundError."""
        request = model_service_pb2.GetModelRequest(model=model)
        found: model_pb2.Model = (await self._connection.call(ModelServiceStub, "GetModel", request)).model
        return found

    async def list(self, name: str = "") -> AsyncIterator[model_pb2.Model]:
        """All versions, or those of one name, by name and version."""
        request = model_service_pb2.ListModelsRequest(name=name)
        async for model in pages(self._connection, ModelServiceStub, "ListModels", request, "models"):
            yield model


def _digest(path: Path) -> tuple[str, int]:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    except OSError as error:
        raise DataRefusedError(
            f"{path} cannot be read: {error.strerror or error}; check the path and its permissions",
            reason=Reason.FILE_UNREADABLE,
            metadata={"path": str(path)},
        ) from error


async def _upload_requests(
    header: model_service_pb2.UploadModelHeader, path: Path
) -> AsyncIterator[model_service_pb2.UploadModelRequest]:
    yield model_service_pb2.UploadModelRequest(header=header)
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, limits.STREAM_PIECE_BYTES):
            yield model_service_pb2.UploadModelRequest(data=data)

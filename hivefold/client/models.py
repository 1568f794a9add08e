"""Registered models: their versions, aliases, and where they are kept loaded."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from hivefold import limits
from hivefold.client.connection import Connection
from hivefold.client.loading import Loading, missing, until_loaded
from hivefold.client.paging import pages
from hivefold.client.request_ids import new_request_id
from hivefold.client.sending import Progress, send
from hivefold.errors import DataRefusedError, Reason
from hivefold.v1 import job_pb2, model_pb2, model_service_pb2
from hivefold.v1.model_service_pb2_grpc import ModelServiceStub


class Models:
    """Models: add, look up, name by alias, keep loaded, remove.

    Where a model is named, "digits" is its latest version, "digits@3" a version, "digits@prod" what an alias
    stands for. Calls that change something take a `request_id`: with the same one they may be repeated.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(
        self,
        path: Path | str,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        provenance: model_pb2.ModelProvenance | None = None,
        request_id: str = "",
        on_progress: Progress | None = None,
    ) -> model_pb2.Model:
        """Registers a model file under `name`; the same content again gives the version that is there.

        `provenance` says under which licence, from where and from whom. `on_progress` gets the bytes sent and the bytes
        in all. Raises DataRefusedError when the file cannot be read or is no acceptable model.
        """
        path = Path(path)
        digest, size_bytes = await asyncio.to_thread(_digest, path)
        header = model_service_pb2.UploadModelHeader(
            request_id=request_id or new_request_id(),
            name=name,
            digest=digest,
            size_bytes=size_bytes,
            labels=dict(labels or {}),
            provenance=provenance,
        )
        response = await send(
            self._connection, ModelServiceStub, "UploadModel", lambda: _upload_requests(header, path, on_progress)
        )
        model: model_pb2.Model = response.model
        return model

    async def get(self, model: str) -> model_pb2.Model:
        """One version. Raises NotFoundError."""
        return (await self.describe(model)).model

    async def describe(self, model: str) -> model_service_pb2.GetModelResponse:
        """One version with its aliases, where it is to be kept loaded, and what is missing. Raises NotFoundError."""
        request = model_service_pb2.GetModelRequest(model=model)
        found: model_service_pb2.GetModelResponse = await self._connection.call(ModelServiceStub, "GetModel", request)
        return found

    async def list(self, name: str = "") -> AsyncIterator[model_pb2.Model]:
        """All versions, or those of one name, by name and version."""
        request = model_service_pb2.ListModelsRequest(name=name)
        async for model in pages(self._connection, ModelServiceStub, "ListModels", request, "models"):
            yield model

    async def move_alias(
        self,
        alias: str,
        version: int,
        *,
        expected_version: int | None = None,
        note: str = "",
        request_id: str = "",
    ) -> model_pb2.ModelAlias:
        """Lets an alias, "digits@prod", stand for a version from now on.

        With `expected_version` only if it stands for that one now; 0: only if it is new. Raises ConflictError
        (ALIAS_MOVED) otherwise, NotFoundError without such a version, InvalidRequestError.
        """
        name, _, short = alias.partition("@")
        request = model_service_pb2.MoveAliasRequest(
            request_id=request_id or new_request_id(),
            name=name,
            alias=short,
            version=version,
            expected_version=expected_version,
            note=note,
        )
        moved: model_pb2.ModelAlias = (await self._connection.call(ModelServiceStub, "MoveAlias", request)).alias
        return moved

    async def remove_alias(
        self, alias: str, *, expected_version: int | None = None, note: str = "", request_id: str = ""
    ) -> None:
        """Removes an alias. Raises NotFoundError, and ConflictError as move_alias does."""
        name, _, short = alias.partition("@")
        request = model_service_pb2.RemoveAliasRequest(
            request_id=request_id or new_request_id(),
            name=name,
            alias=short,
            expected_version=expected_version,
            note=note,
        )
        await self._connection.call(ModelServiceStub, "RemoveAlias", request)

    async def aliases(self, name: str = "") -> AsyncIterator[model_pb2.ModelAlias]:
        """All aliases, or those of one model, by model and alias."""
        request = model_service_pb2.ListAliasesRequest(name=name)
        async for alias in pages(self._connection, ModelServiceStub, "ListAliases", request, "aliases"):
            yield alias

    async def keep(
        self,
        model: str,
        *,
        replicas: int | None = None,
        pinned: bool | None = None,
        needs: job_pb2.Needs | None = None,
        request_id: str = "",
    ) -> model_service_pb2.Residency:
        """Says on how many nodes, and on which, a version is to be kept loaded; None leaves it as it is.

        What the name stands for now counts: an alias that moves later takes nothing with it. 0 replicas end it.
        Gives what holds from now on; the nodes load it after that. Raises NotFoundError, InvalidRequestError.
        """
        request = model_service_pb2.SetResidencyRequest(
            request_id=request_id or new_request_id(),
            model=model,
            replica_count=replicas,
            pinned=pinned,
            needs=needs,
        )
        response = await self._connection.call(ModelServiceStub, "SetResidency", request)
        residency: model_service_pb2.Residency = response.residency
        return residency

    async def wait_loaded(
        self,
        model: model_service_pb2.Residency | str,
        *,
        timeout_s: float = limits.LOADED_WAIT_S,
        on_progress: Callable[[Loading], None] | None = None,
    ) -> model_service_pb2.Residency:
        """Waits until a version is loaded on as many nodes as it is to be kept on: give what `keep` gave, or its name.

        What a name stands for now counts. `on_progress` is called after each look, every 0.2 to 2 s, that finds it
        not yet so. Raises UnavailableError (DEADLINE_EXCEEDED) after `timeout_s`, which says what each node lacks: the
        version stays wanted; NotFoundError, also once it is removed; ConflictError (CANCELLED) where it is to be kept
        nowhere, also once it is unloaded.
        """
        if isinstance(model, str):
            found = await self.get(model)
            since = model_service_pb2.Residency(model=f"{found.name}@{found.version}")
        else:
            since = model
        return await until_loaded(
            lambda: self._loading(since.model), since=since, timeout_s=timeout_s, on_progress=on_progress
        )

    async def _loading(self, ref: str) -> Loading:
        residency = (await self.describe(ref)).residency
        residency.model = ref  # also where nothing was said
        if (seen := Loading(residency, {})).complete:
            return seen
        replicas = {replica.node_id: replica async for replica in self.replicas(ref)}
        return Loading(residency, missing(residency, replicas))

    async def replicas(self, model: str = "") -> AsyncIterator[model_service_pb2.Replica]:
        """Where models are loaded, are being loaded or ought to be, by model and node."""
        request = model_service_pb2.ListReplicasRequest(model=model)
        async for replica in pages(self._connection, ModelServiceStub, "ListReplicas", request, "replicas"):
            yield replica

    async def remove(self, model: str, *, force: bool = False, note: str = "", request_id: str = "") -> None:
        """Takes one version, "digits@3", out of the registry; its bytes go when nothing refers to them.

        Raises ConflictError (MODEL_IN_USE) where an alias, a residency or an open job does, unless `force`;
        NotFoundError, InvalidRequestError.
        """
        request = model_service_pb2.RemoveModelRequest(
            request_id=request_id or new_request_id(), model=model, force=force, note=note
        )
        await self._connection.call(ModelServiceStub, "RemoveModel", request)


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
    header: model_service_pb2.UploadModelHeader, path: Path, on_progress: Progress | None
) -> AsyncIterator[model_service_pb2.UploadModelRequest]:
    yield model_service_pb2.UploadModelRequest(header=header)
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, limits.STREAM_PIECE_BYTES):
            yield model_service_pb2.UploadModelRequest(data=data)
            if on_progress is not None:
                on_progress(file.tell(), header.size_bytes)

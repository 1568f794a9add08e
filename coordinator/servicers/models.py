"""ModelService: register models and look them up."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from coordinator.core.commands import RegisterModel
from coordinator.core.model import BlobRef, Model, State, TensorSpec
from coordinator.servicers import checking
from coordinator.servicers.backing import Backing
from coordinator.servicers.paging import Pager
from coordinator.servicers.uploads import lively
from coordinator.wire.values import model_to_proto, pairs
from hivefold import limits
from hivefold.blobs import content
from hivefold.errors import (
    DataRefusedError,
    FieldViolation,
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
    Reason,
)
from hivefold.ids import Digest, ModelName, model_ref, parse_model
from hivefold.models import OnnxFacts, TensorFacts, inspect_onnx
from hivefold.models.passport.facts import Passport
from hivefold.v1 import model_service_pb2 as pb
from hivefold.v1.model_service_pb2_grpc import ModelServiceServicer


class ModelServicer(ModelServiceServicer):
    """hivefold.v1.ModelService."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._uploads = 0

    async def UploadModel(self, request_iterator: Any, context: Any) -> pb.UploadModelResponse:
        """Receives a model file, checks it without running it, stores and registers it."""
        requests = lively(aiter(request_iterator))
        header = await _header(requests)
        with TemporaryDirectory(prefix="hivefold-model-") as folder:
            path = Path(folder) / f"{header.name}.onnx"
            async with self._upload_slot():
                await _receive(requests, header, path)
                facts, passport = await asyncio.to_thread(_inspect, path)
                blob = await content.upload(self._backing.chunks, _read(path), size_bytes=header.size_bytes)
        model = _model(header, BlobRef(Digest(blob.root), blob.size_bytes), facts, passport)
        answer = await self._backing.decide(RegisterModel(model))
        latest = answer.state.models[model_ref(model.name, answer.state.latest[model.name])]
        return pb.UploadModelResponse(model=model_to_proto(latest))

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        """Gives one model version."""
        state = await self._backing.state_that(lambda known: _found(known, request.model) is not None)
        return pb.GetModelResponse(model=model_to_proto(_known(state, request.model)))

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        """Lists model versions by name and version."""
        if request.name:
            checking.refuse(checking.name("name", request.name))
        pager = Pager("models", [request.name], request.page_size, request.page_token)
        page = pager.page(_listed(self._backing.state, request.name, pager.after))
        models = [model_to_proto(model) for model in page.items]
        return pb.ListModelsResponse(models=models, next_page_token=page.next_token)

    @asynccontextmanager
    async def _upload_slot(self) -> AsyncIterator[None]:
        if self._uploads >= limits.MODEL_UPLOADS:
            raise LimitExceededError(
                f"{limits.MODEL_UPLOADS} models are being uploaded, the limit; try again when one is done",
                metadata={"limit": str(limits.MODEL_UPLOADS)},
            )
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1


async def _header(requests: AsyncIterator[pb.UploadModelRequest]) -> pb.UploadModelHeader:
    first = await anext(requests, pb.UploadModelRequest())
    if first.WhichOneof("part") != "header":
        fix = "must come in the first message, before any bytes"
        raise InvalidRequestError(f"header {fix}", violations=[FieldViolation("header", fix)])
    checking.refuse(checking.model_header(first.header))
    return first.header


async def _receive(requests: AsyncIterator[pb.UploadModelRequest], header: pb.UploadModelHeader, path: Path) -> None:
    """Writes the bytes to a file as they come; refuses what is not as the header says."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        async for request in requests:
            checking.refuse(checking.piece("data", request.data))
            size += len(request.data)
            if size > header.size_bytes:
                break
            await asyncio.to_thread(_append, file, digest, request.data)
    if size != header.size_bytes:
        more = "more than the" if size > header.size_bytes else f"{size} of the"
        raise DataRefusedError(
            f"{more} {header.size_bytes} bytes that were announced came: send the whole file, and its right size",
            reason=Reason.DATA_INVALID,
            metadata={"announced_bytes": str(header.size_bytes)},
        )
    if digest.hexdigest() != header.digest:
        raise DataRefusedError(
            f"the file has the digest {digest.hexdigest()}, announced was {header.digest}: it was altered on the way, "
            "or changed while it was read; upload it again",
            reason=Reason.DIGEST_MISMATCH,
            metadata={"announced": header.digest, "found": digest.hexdigest()},
        )


def _append(file: IO[bytes], digest: Any, data: bytes) -> None:
    digest.update(data)
    file.write(data)


def _inspect(path: Path) -> tuple[OnnxFacts, Passport]:
    from hivefold.models.passport.admission import admitted

    try:
        return inspect_onnx(path), admitted(path)
    except DataRefusedError as error:
        # Where the file lies for now is nobody's business.
        kept = {name: value for name, value in error.metadata.items() if name != "path"}
        raise DataRefusedError(error.message, reason=error.reason, metadata={**kept, "model": path.stem}) from None


async def _read(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, limits.STREAM_PIECE_BYTES):
            yield piece


def _model(header: pb.UploadModelHeader, artifact: BlobRef, facts: OnnxFacts, passport: Passport) -> Model:
    return Model(
        name=ModelName(header.name),
        version=0,
        digest=Digest(header.digest),
        artifact=artifact,
        platform="onnx",
        inputs=_tensors(facts.inputs),
        outputs=_tensors(facts.outputs),
        labels=pairs(header.labels),
        passport=passport,
    )


def _tensors(facts: tuple[TensorFacts, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(tensor.name, tensor.data_type, tensor.shape) for tensor in facts)


def _found(state: State, text: str) -> Model | None:
    name, version = parse_model(text) or (ModelName(""), 0)
    return state.models.get(model_ref(name, version or state.latest.get(name, 0)))


def _known(state: State, text: str) -> Model:
    checking.refuse(checking.model("model", text))
    model = _found(state, text)
    if model is None:
        raise NotFoundError(
            f"there is no model {text!r}; list them with: hivefold model ls",
            reason=Reason.MODEL_NOT_FOUND,
            metadata={"model": text},
        )
    return model


def _listed(state: State, name: str, after: str) -> Iterator[tuple[str, Model]]:
    """Models in order, with keys that sort as names and versions do."""
    keyed = ((f"{model.name}@{model.version:09d}", model) for model in state.models.values())
    wanted = [(key, model) for key, model in keyed if key > after and (not name or model.name == name)]
    return iter(sorted(wanted, key=lambda item: item[0]))

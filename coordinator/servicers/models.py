"""ModelService: register models, look them up, name them by alias, say where they are kept loaded, remove them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from coordinator.core.commands import MoveAlias, RegisterModel, RemoveModel, SetResidency
from coordinator.core.model import BlobRef, Model, State, TensorSpec
from coordinator.core.resolve import resolve, unknown_model
from coordinator.model_views import alias_view, replicas, residency_view
from coordinator.servicers import checking
from coordinator.servicers.backing import Backing
from coordinator.servicers.paging import Pager
from coordinator.servicers.uploads import lively
from coordinator.wire.values import model_to_proto, needs_from_proto, pairs, provenance_from_proto
from hivefold import limits
from hivefold.blobs import content
from hivefold.errors import (
    DataRefusedError,
    FieldViolation,
    InvalidRequestError,
    LimitExceededError,
    Reason,
)
from hivefold.ids import Digest, ModelName, ModelRef, RequestId, alias_ref, model_ref
from hivefold.models import OnnxFacts, TensorFacts, inspect_onnx
from hivefold.models.passport.facts import Passport
from hivefold.rpc import error_for
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
                async with self._backing.artifacts.adding():
                    blob = await content.upload(self._backing.chunks, _read(path), size_bytes=header.size_bytes)
                    model = _model(header, BlobRef(Digest(blob.root), blob.size_bytes), facts, passport)
                    answer = await self._backing.decide(RegisterModel(model))
        latest = answer.state.models[model_ref(model.name, answer.state.latest[model.name])]
        return pb.UploadModelResponse(model=model_to_proto(latest))

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        """Gives one model version."""
        state = await self._backing.state_that(lambda known: resolve(known, request.model) is not None)
        model = _known(state, request.model)
        return pb.GetModelResponse(
            model=model_to_proto(model),
            aliases=[alias_view(alias) for alias in sorted(state.aliases.values()) if alias.model == model.ref],
            residency=residency_view(state, model.ref) if model.ref in state.residencies else None,
        )

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        """Lists model versions by name and version."""
        if request.name:
            checking.refuse(checking.name("name", request.name))
        pager = Pager("models", [request.name], request.page_size, request.page_token)
        page = pager.page(_listed(self._backing.state, request.name, pager.after))
        models = [model_to_proto(model) for model in page.items]
        return pb.ListModelsResponse(models=models, next_page_token=page.next_token)

    async def MoveAlias(self, request: pb.MoveAliasRequest, context: Any) -> pb.MoveAliasResponse:
        """Lets an alias stand for another version."""
        checking.refuse(checking.moved_alias(request))
        answer = await self._backing.decide(_alias_command(request, request.version))
        alias = answer.state.aliases.get(alias_ref(ModelName(request.name), request.alias))
        return pb.MoveAliasResponse(alias=alias_view(alias) if alias else None)

    async def RemoveAlias(self, request: pb.RemoveAliasRequest, context: Any) -> pb.RemoveAliasResponse:
        """Removes an alias."""
        await self._backing.decide(_alias_command(request, 0))
        return pb.RemoveAliasResponse()

    async def ListAliases(self, request: pb.ListAliasesRequest, context: Any) -> pb.ListAliasesResponse:
        """Lists aliases by model and alias."""
        if request.name:
            checking.refuse(checking.name("name", request.name))
        pager = Pager("aliases", [request.name], request.page_size, request.page_token)
        found = sorted(
            (str(ref), alias)
            for ref, alias in self._backing.state.aliases.items()
            if ref > pager.after and request.name in {"", alias.name}
        )
        page = pager.page(found)
        return pb.ListAliasesResponse(aliases=map(alias_view, page.items), next_page_token=page.next_token)

    async def SetResidency(self, request: pb.SetResidencyRequest, context: Any) -> pb.SetResidencyResponse:
        """Says where a model version is to be kept loaded."""
        checking.refuse(checking.model("model", request.model))
        command = SetResidency(
            request.model,
            request.replica_count if request.HasField("replica_count") else None,
            request.pinned if request.HasField("pinned") else None,
            needs_from_proto(request.needs) if request.HasField("needs") else None,
            RequestId(request.request_id),
        )
        answer = await self._backing.decide(command)
        return pb.SetResidencyResponse(residency=residency_view(answer.state, _asked(answer.state, command)))

    async def ListReplicas(self, request: pb.ListReplicasRequest, context: Any) -> pb.ListReplicasResponse:
        """Lists where models are loaded, are being loaded or ought to be."""
        state = self._backing.state
        refs = _selected(state, request.model)
        pager = Pager("replicas", [request.model], request.page_size, request.page_token)
        page = pager.page(replicas(state, self._backing.hearing, refs, pager.after))
        return pb.ListReplicasResponse(replicas=page.items, next_page_token=page.next_token)

    async def RemoveModel(self, request: pb.RemoveModelRequest, context: Any) -> pb.RemoveModelResponse:
        """Takes a model version out of the registry."""
        command = RemoveModel(request.model, request.force, request.note, RequestId(request.request_id))
        await self._backing.decide(command)
        return pb.RemoveModelResponse()

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
        provenance=provenance_from_proto(header.provenance) if header.HasField("provenance") else None,
    )


def _alias_command(request: pb.MoveAliasRequest | pb.RemoveAliasRequest, version: int) -> MoveAlias:
    expected = request.expected_version if request.HasField("expected_version") else None
    return MoveAlias(
        ModelName(request.name), request.alias, version, expected, request.note, RequestId(request.request_id)
    )


def _asked(state: State, command: SetResidency) -> ModelRef:
    """The version that a request was about: what its name stood for then."""
    known = next((r.subject for r in state.model_requests if r.request_id == command.request_id), None)
    return ModelRef(known) if known is not None else _known(state, command.model).ref


def _selected(state: State, text: str) -> frozenset[ModelRef]:
    """The versions that a filter names: all of a name, or one."""
    if not text:
        return frozenset(state.models)
    checking.refuse(checking.model("model", text))
    if "@" in text:
        return frozenset({_known(state, text).ref})
    return frozenset(model.ref for model in state.models.values() if model.name == text)


def _tensors(facts: tuple[TensorFacts, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(tensor.name, tensor.data_type, tensor.shape) for tensor in facts)


def _known(state: State, text: str) -> Model:
    checking.refuse(checking.model("model", text))
    model = resolve(state, text)
    if model is None:
        refusal = unknown_model(state, text)
        raise error_for(refusal.reason, refusal.message, dict(refusal.metadata))
    return model


def _listed(state: State, name: str, after: str) -> Iterator[tuple[str, Model]]:
    """Models in order, with keys that sort as names and versions do."""
    keyed = ((f"{model.name}@{model.version:09d}", model) for model in state.models.values())
    wanted = [(key, model) for key, model in keyed if key > after and (not name or model.name == name)]
    return iter(sorted(wanted, key=lambda item: item[0]))

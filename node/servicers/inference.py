"""inference.GRPCInferenceService: the protocol's messages in and out. What is inferred, and where, is decided below."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import grpc

from hivefold.clock import stopwatch_ns
from hivefold.errors import HivefoldError, NotFoundError
from hivefold.limits import GRPC_DEADLINE_MAX_S
from hivefold.oip import schema
from hivefold.oip.limits import AUDIT_ADDRESS_CHARACTERS, STREAM_REQUESTS
from hivefold.oip.repeated import Repeated
from hivefold.oip.requests import address
from hivefold.oip.schema import Message
from hivefold.oip.tensors import refused
from hivefold.rpc import Service
from hivefold.v1 import model_pb2
from hivefold.version import VERSION
from node.serving.inference import FORWARDED, Inference
from node.serving.statistics import Compute, Span, Tally
from node.wire import data_type_name

EXTENSIONS: Final = ("model_repository", "statistics")
_REPOSITORY: Final = "hivefold"
_PLATFORMS: Final = {"onnx": "onnx_onnxv1"}


class InferenceServicer:
    """The service of one node. Each method takes a request and an empty response, and fills that."""

    def __init__(self, inference: Inference, serving: Callable[[], bool]) -> None:
        self._inference = inference
        self._serving = serving
        self._repeated = Repeated()

    async def model_infer(self, data: bytes, context: Any) -> bytes:
        """ModelInfer, from bytes to bytes: nothing of a request is read or written that need not be."""
        left_s = context.time_remaining()
        most_s = GRPC_DEADLINE_MAX_S if left_s is None else min(left_s, GRPC_DEADLINE_MAX_S)
        deadline_us = stopwatch_ns() // 1000 + int(most_s * 1e6)
        inference = self._inference
        head = self._repeated.head(data)
        route = None if head is None else inference.route(head)
        if head is None or route is None:
            return await inference.infer(
                self._repeated.address(data),
                data,
                deadline_us=deadline_us,
                forwarded=lambda: _is_forwarded(context),
                caller=lambda: _caller(context),
            )
        return await inference.along(route, head.with_bytes(data), deadline_us, lambda: _caller(context))

    async def model_stream_infer(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """ModelStreamInfer: requests of a stream are in hand together, their answers come in order."""
        forwarded, caller = partial(_is_forwarded, context), partial(_caller, context)
        line: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(STREAM_REQUESTS)

        async def read() -> None:
            try:
                async for data in requests:
                    await line.put(asyncio.create_task(self._stream_answer(data, forwarded, caller)))
            finally:
                await line.put(None)

        reading = asyncio.create_task(read())
        try:
            while (task := await line.get()) is not None:
                yield await task
            await reading
        finally:
            reading.cancel()
            while not line.empty():
                left = line.get_nowait()
                if left is not None:
                    left.cancel()

    async def _stream_answer(self, data: bytes, forwarded: Callable[[], bool], caller: Callable[[], str]) -> bytes:
        """A failed request does not end its stream: the answer says why it failed."""
        response = schema.ModelStreamInferResponse()
        try:
            asked = address(data)
            response.infer_response.id = asked.id
            deadline_us = stopwatch_ns() // 1000 + int(GRPC_DEADLINE_MAX_S * 1e6)
            answer = await self._inference.infer(
                asked, data, deadline_us=deadline_us, forwarded=forwarded, caller=caller
            )
        except HivefoldError as error:
            response.error_message = error.message
        else:
            response.infer_response.MergeFromString(answer)
        written: bytes = response.SerializeToString()
        return written

    async def server_live(self, request: Message, response: Message) -> None:
        """Whether the server answers."""
        response.live = True

    async def server_ready(self, request: Message, response: Message) -> None:
        """Whether the node takes requests."""
        response.ready = self._serving()

    async def server_metadata(self, request: Message, response: Message) -> None:
        """Who answers, and what it can."""
        response.name, response.version = "hivefold", VERSION
        response.extensions.extend(EXTENSIONS)

    async def model_ready(self, request: Message, response: Message) -> None:
        """Whether a request for the model would be served: it is loaded when it is needed."""
        try:
            await self._inference.catalogue.find(request.name, request.version)
        except NotFoundError:
            response.ready = False
        else:
            response.ready = self._serving()

    async def model_metadata(self, request: Message, response: Message) -> None:
        """What the model takes and gives."""
        model = await self._inference.catalogue.find(request.name, request.version)
        versions = [model.version]
        if not request.version and "@" not in request.name:
            versions = [each.version for each in await self._inference.catalogue.versions(model.name)]
        response.name, response.platform = model.name, _PLATFORMS.get(model.platform, model.platform)
        response.versions.extend(str(version) for version in versions)
        for specs, described in ((model.inputs, response.inputs), (model.outputs, response.outputs)):
            for spec in specs:
                described.add(name=spec.name, datatype=data_type_name(spec.data_type), shape=spec.shape)

    async def model_statistics(self, request: Message, response: Message) -> None:
        """What was inferred here; an unknown model is refused, one without requests has zeros."""
        wanted: tuple[str, int] | None = None
        if request.name:
            model = await self._inference.catalogue.find(request.name, request.version)
            wanted = (model.name, model.version if request.version else 0)
            self._inference.statistics.of(model.name, model.version)
        for name, version, tally in self._inference.statistics.all():
            if wanted is None or (name == wanted[0] and wanted[1] in {0, version}):
                _describe(response.model_stats.add(name=name, version=str(version)), tally)

    async def repository_index(self, request: Message, response: Message) -> None:
        """The registered models; READY are those loaded on this node."""
        _check_repository(request)
        for model in await self._inference.catalogue.versions():
            ready = self._inference.shelf.has(model.digest)
            if ready or not request.ready:
                response.models.add(
                    name=model.name,
                    version=str(model.version),
                    state="READY" if ready else "UNAVAILABLE",
                    reason="" if ready else "not loaded on this node; its first request loads it",
                )

    async def repository_model_load(self, request: Message, response: Message) -> None:
        """Loads a model here."""
        for name in request.parameters:
            if name == "config" or name.startswith("file:"):
                raise refused(f"parameters.{name}", "a model is loaded as it was registered: hivefold model add")
        await self._inference.load(await self._named(request))

    async def repository_model_unload(self, request: Message, response: Message) -> None:
        """Releases a model here: all its versions, unless one is named."""
        named = await self._named(request)
        every = "@" not in request.model_name
        for model in await self._inference.catalogue.versions(named.name) if every else (named,):
            self._inference.shelf.release(model.digest)

    async def _named(self, request: Message) -> model_pb2.Model:
        _check_repository(request)
        if not request.model_name:
            raise refused("model_name", "give the name of a registered model")
        return await self._inference.catalogue.find(request.model_name, "")

    def handlers(self) -> Mapping[str, grpc.RpcMethodHandler[Any, Any]]:
        """A handler for each rpc."""
        plain = {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ServerMetadata": self.server_metadata,
            "ModelReady": self.model_ready,
            "ModelMetadata": self.model_metadata,
            "ModelStatistics": self.model_statistics,
            "RepositoryIndex": self.repository_index,
            "RepositoryModelLoad": self.repository_model_load,
            "RepositoryModelUnload": self.repository_model_unload,
        }
        return {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self.model_infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self.model_stream_infer),
            **{name: _filling(name, fill) for name, fill in plain.items()},
        }


def inference_service(inference: Inference, serving: Callable[[], bool]) -> Service:
    """The service, ready to be served."""
    handlers = InferenceServicer(inference, serving).handlers()
    return Service(
        schema.SERVICE,
        lambda server: server.add_registered_method_handlers(schema.SERVICE, handlers),
        pool=schema.POOL,
        lean=("ModelInfer",),
        own_health=True,
    )


def _filling(name: str, fill: Callable[[Message, Message], Awaitable[None]]) -> grpc.RpcMethodHandler[Any, Any]:
    request_class, response_class = schema.method(name)

    async def serve(request: Message, context: Any) -> Message:
        del context
        response = response_class()
        await fill(request, response)
        return response

    return grpc.unary_unary_rpc_method_handler(
        serve, request_deserializer=request_class.FromString, response_serializer=response_class.SerializeToString
    )


def _is_forwarded(context: Any) -> bool:
    return any(key == FORWARDED for key, _ in context.invocation_metadata() or ())


def _caller(context: Any) -> str:
    """Who asked: the address that called; where it passed a request on, before it what it says of its own caller."""
    peer = str(context.peer())
    for key, value in context.invocation_metadata() or ():
        if key == FORWARDED:
            return f"{str(value).partition(' ')[2][:AUDIT_ADDRESS_CHARACTERS]} via {peer}"
    return peer


def _check_repository(request: Message) -> None:
    if request.repository_name not in {"", _REPOSITORY}:
        raise refused("repository_name", f"there is one repository, {_REPOSITORY!r}; leave it empty")


def _describe(target: Message, tally: Tally) -> None:
    target.last_inference, target.inference_count, target.execution_count = tally.last_ms, tally.rows, tally.runs
    stats = target.inference_stats
    for field, span in (("success", tally.success), ("fail", tally.fail), ("queue", tally.queue)):
        _describe_span(getattr(stats, field), span)
    _describe_compute(stats, tally.compute)
    for rows, compute in sorted(tally.by_rows.items()):
        _describe_compute(target.batch_stats.add(batch_size=rows), compute)


def _describe_compute(target: Message, compute: Compute) -> None:
    _describe_span(target.compute_input, compute.input)
    _describe_span(target.compute_infer, compute.infer)
    _describe_span(target.compute_output, compute.output)


def _describe_span(target: Message, span: Span) -> None:
    target.count, target.ns = span.count, span.ns

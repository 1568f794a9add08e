"""Client interceptors: a span for each call, its traceparent in the metadata. Only there when spans are recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio

from hivefold import observe

_SYSTEM: Final = {"rpc.system.name": "grpc"}


def aio_interceptors() -> Sequence[grpc.aio.ClientInterceptor]:
    """One for each form of call: grpc.aio takes an interceptor for the first form that it knows."""
    return [_AioUnaryUnary(), _AioUnaryStream(), _AioStreamUnary()]


def sync_interceptors() -> Sequence[_SyncCalls]:
    """One for all forms of call."""
    return [_SyncCalls()]


def _start(method: str | bytes) -> observe.ActiveSpan:
    name = (method.decode() if isinstance(method, bytes) else method).removeprefix("/")
    return observe.start_span(name, kind="client", attributes={**_SYSTEM, "rpc.method": name})


def _finish(span: observe.ActiveSpan, code: grpc.StatusCode | None) -> None:
    name = code.name if code is not None else "CANCELLED"
    span.set("rpc.response.status_code", name)
    if code is not grpc.StatusCode.OK:
        span.fail(name)
    span.end()


def _aio_details(details: Any, span: observe.ActiveSpan) -> grpc.aio.ClientCallDetails:
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    metadata.add("traceparent", span.traceparent)
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )


async def _aio_call(continuation: Callable[..., Any], details: Any, request: Any) -> Any:
    span, code = _start(details.method), None
    try:
        call = await continuation(_aio_details(details, span), request)
        code = await call.code()
        return call
    finally:
        _finish(span, code)


class _AioUnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await _aio_call(continuation, client_call_details, request)


class _AioStreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await _aio_call(continuation, client_call_details, request_iterator)


class _AioUnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        span = _start(client_call_details.method)
        call = await continuation(_aio_details(client_call_details, span), request)
        return _relayed(call, span)


async def _relayed(call: Any, span: observe.ActiveSpan) -> AsyncIterator[Any]:
    code: grpc.StatusCode | None = None
    try:
        async for response in call:
            yield response
        code = await call.code()
    except grpc.aio.AioRpcError as error:
        code = error.code()
        raise
    except (asyncio.CancelledError, GeneratorExit):
        call.cancel()
        raise
    finally:
        _finish(span, code)


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Sequence[tuple[str, str | bytes]] | None
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _SyncDetails(_Details, grpc.ClientCallDetails):  # type: ignore[misc]  # gRPC's class declares no slots to clash
    pass


class _SyncCalls(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
):
    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return _sync_call(continuation, client_call_details, request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return _sync_call(continuation, client_call_details, request_iterator)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        span = _start(client_call_details.method)
        call = continuation(_sync_details(client_call_details, span), request)
        if not call.add_callback(lambda: _finish(span, call.code())):
            _finish(span, call.code())
        return call


def _sync_call(continuation: Any, details: Any, request: Any) -> Any:
    span = _start(details.method)
    call = continuation(_sync_details(details, span), request)
    _finish(span, call.code())
    return call


def _sync_details(details: Any, span: observe.ActiveSpan) -> _SyncDetails:
    metadata = [*(details.metadata or ()), ("traceparent", span.traceparent)]
    return _SyncDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready, details.compression
    )

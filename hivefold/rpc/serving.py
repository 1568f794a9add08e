"""Around every call of a server: a place among those in hand, trace, deadline, log keys, errors as rich statuses."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio
import structlog

from hivefold import limits, observe
from hivefold.errors import HivefoldError, InvalidRequestError, LimitExceededError, Reason, UnavailableError
from hivefold.rpc.errors import STATUS_KEY, code_of, status_of

_log = structlog.get_logger(__name__)
_NO_SPAN: Final = observe.ActiveSpan(None, "")
_ID_FIELDS: Final = ("job_id", "node_id", "request_id")


class Serving:
    """Wraps every method of a server, whatever its form, and admits so many calls at once.

    Methods are wrapped when they are registered: an interceptor costs each call a lookup and a coroutine.
    grpc.aio's own bound on calls refuses before it has read the request, which callers may see as CANCELLED.
    """

    def __init__(self, concurrent_calls: int, lean: Collection[str] = ()) -> None:
        self._most = concurrent_calls
        self._lean = frozenset(lean)
        self._in_hand = 0
        self._duration = observe.meter().create_histogram(
            "rpc.server.call.duration", unit="s", description="Duration of incoming calls"
        )

    def is_lean(self, method: str) -> bool:
        """Whether the method ("package.Service/Method") is on a hot path."""
        return method in self._lean

    def wrap(self, method: str, handler: Any) -> Any:
        """The handler of `method` ("package.Service/Method") with all that is around a call."""
        serializers = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._streaming(method, handler.stream_stream), **serializers)
        if handler.request_streaming:
            behaviour = self._unary(method, _hearing_out(self._admitting(handler.stream_unary)), limits.GRPC_STREAM_S)
            return grpc.stream_unary_rpc_method_handler(behaviour, **serializers)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(method, handler.unary_stream), **serializers)
        if self.is_lean(method) and not observe.tracing():
            return grpc.unary_unary_rpc_method_handler(self._leanly(handler.unary_unary), **serializers)
        behaviour = self._unary(method, self._admitting(handler.unary_unary), limits.GRPC_DEADLINE_MAX_S)
        return grpc.unary_unary_rpc_method_handler(behaviour, **serializers)

    def _unary(self, method: str, behaviour: Any, most_s: float) -> Any:
        async def serve(request: Any, context: Any) -> Any:
            async with self._call(method, request, context, most_s):
                return await behaviour(request, context)

        return serve

    def _leanly(self, behaviour: Any) -> Any:
        async def serve(request: Any, context: Any) -> Any:
            if self._in_hand >= self._most:
                await _abort(context, self._full())
            self._in_hand += 1
            try:
                return await behaviour(request, context)
            except Exception as error:
                refusal = _refusal(error, context, _NO_SPAN)
                if refusal is None:
                    raise
                await _abort(context, refusal)
            finally:
                self._in_hand -= 1

        return serve

    def _streaming(self, method: str, behaviour: Any) -> Any:
        if not inspect.isasyncgenfunction(behaviour):
            # Written with context.write: nothing comes out of it to pass on.
            return self._unary(method, self._admitting(behaviour), limits.GRPC_STREAM_S)

        async def serve(request: Any, context: Any) -> AsyncIterator[Any]:
            async with self._call(method, request, context, limits.GRPC_STREAM_S):
                with self._place():
                    async for response in behaviour(request, context):
                        yield response

        return serve

    def _admitting(self, behaviour: Any) -> Any:
        async def serve(request: Any, context: Any) -> Any:
            with self._place():
                return await behaviour(request, context)

        return serve

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """A place among the calls in hand. Raises LimitExceededError when all are taken."""
        if self._in_hand >= self._most:
            raise self._full()
        self._in_hand += 1
        try:
            yield
        finally:
            self._in_hand -= 1

    def _full(self) -> LimitExceededError:
        return LimitExceededError(
            f"{self._most} calls are in hand, the limit; close watches, or try again in a moment",
            metadata={"limit": str(self._most)},
        )

    @asynccontextmanager
    async def _call(self, method: str, request: Any, context: Any, most_s: float) -> AsyncIterator[None]:
        started_s = asyncio.get_running_loop().time()
        span = observe.span(
            method,
            kind="server",
            parent=_traceparent(context),
            attributes={"rpc.system.name": "grpc", "rpc.method": method},
        )
        code = grpc.StatusCode.OK
        with span, observe.bound(rpc=method, **_ids(request)):
            try:
                async with asyncio.timeout(_deadline_s(context, most_s)):
                    yield
            except Exception as error:
                refusal = _refusal(error, context, span)
                if refusal is None:
                    code = _given(context)
                    _finish(span, code)
                    raise
                code = code_of(refusal)
                _finish(span, code, refusal)
                await _abort(context, refusal)
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
                _finish(span, code)
                raise
            else:
                code = _given(context, grpc.StatusCode.OK)
                _finish(span, code)
            finally:
                elapsed_s = asyncio.get_running_loop().time() - started_s
                self._duration.record(
                    elapsed_s,
                    {"rpc.system.name": "grpc", "rpc.method": method, "rpc.response.status_code": code.name},
                )


class Registrar:
    """Stands in for the server where generated code registers handlers, and registers them wrapped."""

    def __init__(self, server: grpc.aio.Server, serving: Serving) -> None:
        self._server = server
        self._serving = serving

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """As the server's, for the methods of one service.

        Only lean methods are: for each new call, of whatever method, grpc.aio waits anew for the next call of every
        registered one. All others are looked up by name.
        """
        wrapped = {method: self._serving.wrap(f"{service}/{method}", handler) for method, handler in handlers.items()}
        lean = {method: wrapped.pop(method) for method in handlers if self._serving.is_lean(f"{service}/{method}")}
        if lean:
            self._server.add_registered_method_handlers(service, lean)
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, wrapped)])

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """As the server's: what looks methods up by name."""
        self._server.add_generic_rpc_handlers([_Wrapped(handler, self._serving) for handler in handlers])


class _Wrapped(grpc.GenericRpcHandler):
    """A lookup of methods whose findings are wrapped, once and for all."""

    def __init__(self, inner: grpc.GenericRpcHandler, serving: Serving) -> None:
        self._inner = inner
        self._serving = serving
        self._known: dict[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method
        if method not in self._known:
            found = self._inner.service(handler_call_details)
            if found is None:
                return None
            self._known[method] = self._serving.wrap(method.removeprefix("/"), found)
        return self._known[method]


def _hearing_out(behaviour: Any) -> Any:
    """Lets the caller finish for a moment before it is refused.

    A client that is cut off while it still sends is told "Internal error from Core" by gRPC, not why.
    """

    async def serve(requests: Any, context: Any) -> Any:
        try:
            return await behaviour(requests, context)
        except HivefoldError:
            with contextlib.suppress(TimeoutError, grpc.RpcError, grpc.aio.UsageError):
                async with asyncio.timeout(limits.GRPC_HEAR_OUT_S):
                    async for _ in requests:
                        pass
            raise

    return serve


def _traceparent(context: Any) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent" and isinstance(value, str):
            return value if observe.is_traceparent(value) else ""
    return ""


def _ids(request: Any) -> dict[str, str]:
    """Ids in the request, for log lines; cut, because nothing has looked at them yet."""
    return {name: value[:64] for name in _ID_FIELDS if isinstance(value := getattr(request, name, None), str) and value}


def _deadline_s(context: Any, most_s: float) -> float:
    """Time left, never more than `most_s`; a unary call without a deadline gets the default one."""
    remaining = context.time_remaining()
    if remaining is None:
        return limits.GRPC_DEADLINE_S if most_s == limits.GRPC_DEADLINE_MAX_S else most_s
    return float(min(remaining, most_s))


def _given(context: Any, default: grpc.StatusCode = grpc.StatusCode.UNKNOWN) -> grpc.StatusCode:
    """The status code that the handler itself gave."""
    code = context.code()
    if isinstance(code, grpc.StatusCode):
        return code
    return next((known for known in grpc.StatusCode if code and known.value[0] == code), default)


def _refusal(error: Exception, context: Any, span: observe.ActiveSpan) -> HivefoldError | None:
    """What the caller is told; None when the handler has already told it."""
    match error:
        case grpc.aio.AbortError():
            return None
        case HivefoldError():
            if error.reason is Reason.INTERNAL:
                _log.error("call failed", error=str(error), exc_info=error)
            return error
        case TimeoutError():
            return UnavailableError("the call's time is over; allow more time", reason=Reason.DEADLINE_EXCEEDED)
        case UnicodeError():
            return InvalidRequestError("a text of the request is not valid UTF-8")
        case _ if context.cancelled():
            return UnavailableError("the call was cancelled", reason=Reason.CANCELLED)
        case _:
            _log.error("call failed", error=str(error), exc_info=error)
            trace = span.traceparent[3:35]
            hint = f" It is logged under trace {trace}." if trace else ""
            return HivefoldError(f"a defect in hivefold: please report it with the server's log lines.{hint}")


def _finish(span: observe.ActiveSpan, code: grpc.StatusCode, refusal: HivefoldError | None = None) -> None:
    """Semantic conventions: on a server, what the caller did wrong is no failure of the span, all else is."""
    span.set("rpc.response.status_code", code.name)
    if refusal is not None:
        span.set("hivefold.reason", refusal.reason.value)
    if code is not grpc.StatusCode.OK:
        span.fail(refusal.reason.value if refusal else code.name, refusal.message if refusal else "")


async def _abort(context: Any, refusal: HivefoldError) -> None:
    status = status_of(refusal)
    trailing: list[tuple[str, str | bytes]] = [(STATUS_KEY, status.SerializeToString())]
    if "leader" in refusal.metadata:
        # To ask here again is in vain; the address of who leads is in the status.
        trailing.append(("grpc-retry-pushback-ms", "-1"))
    await context.abort(code_of(refusal), status.message, tuple(trailing))

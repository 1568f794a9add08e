"""Servers and channels as they meet on a loopback port."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from hivefold.errors import ConfigError, HivefoldError, LimitExceededError, NotFoundError, Reason
from hivefold.rpc import RpcServer, Service, error_from_rpc, open_channel, open_sync_channel

SERVICE = "hivefold.v1.JobService"


async def echo(request: bytes, context: Any) -> bytes:
    return request


async def refuse(request: bytes, context: Any) -> bytes:
    raise NotFoundError("no such job; list them", reason=Reason.JOB_NOT_FOUND, metadata={"job": "j-1"})


async def crash(request: bytes, context: Any) -> bytes:
    raise ZeroDivisionError("secret detail")


async def sleep(request: bytes, context: Any) -> bytes:
    await asyncio.Event().wait()
    return b""


async def count(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for number in range(3):
        yield b"%d" % number


async def count_and_refuse(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield b"0"
    await refuse(request, context)


async def add_up(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return b"".join([request async for request in requests])


def handlers() -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Echo": grpc.unary_unary_rpc_method_handler(echo),
            "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
            "Crash": grpc.unary_unary_rpc_method_handler(crash),
            "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
            "Count": grpc.unary_stream_rpc_method_handler(count),
            "CountAndRefuse": grpc.unary_stream_rpc_method_handler(count_and_refuse),
            "AddUp": grpc.stream_unary_rpc_method_handler(add_up),
        },
    )


@pytest.fixture
async def address() -> AsyncIterator[str]:
    server = RpcServer([Service(SERVICE, lambda raw: raw.add_generic_rpc_handlers((handlers(),)))])
    address = server.bind()
    await server.start()
    await server.set_serving(serving=True)
    yield address
    await server.stop(0)


@pytest.fixture
async def channel(address: str) -> AsyncIterator[Any]:
    async with open_channel(address) as channel:
        yield channel


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


async def failure(call: Callable[[], Any]) -> HivefoldError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call()
    return error_from_rpc(caught.value, "the server")


async def drain(call: Any) -> None:
    async for _ in call:
        pass


async def finished(exporter: InMemorySpanExporter, count: int) -> list[ReadableSpan]:
    """The spans, once both ends have ended theirs: they do so independently."""
    async with asyncio.timeout(5):
        while len(exporter.get_finished_spans()) < count:
            await asyncio.sleep(0.001)
    return list(exporter.get_finished_spans())


async def both_ends(exporter: InMemorySpanExporter) -> tuple[ReadableSpan, ReadableSpan]:
    found = {span.kind: span for span in await finished(exporter, 2)}
    return found[SpanKind.CLIENT], found[SpanKind.SERVER]


async def test_calls_of_every_form_go_through(channel: Any) -> None:
    """One message, many out, many in."""
    counted = [item async for item in channel.unary_stream(f"/{SERVICE}/Count")(b"", timeout=5)]

    assert await channel.unary_unary(f"/{SERVICE}/Echo")(b"hi", timeout=5) == b"hi"
    assert counted == [b"0", b"1", b"2"]
    assert await channel.stream_unary(f"/{SERVICE}/AddUp")(iter([b"a", b"b"]), timeout=5) == b"ab"


async def test_errors_arrive_typed(channel: Any) -> None:
    """What the handler raises is what the caller gets."""
    error = await failure(lambda: channel.unary_unary(f"/{SERVICE}/Refuse")(b"", timeout=5))

    assert isinstance(error, NotFoundError)
    assert (error.reason, error.metadata) == (Reason.JOB_NOT_FOUND, {"job": "j-1"})


async def test_errors_in_a_stream_arrive_after_what_came_before(channel: Any) -> None:
    """A stream that fails keeps what it had sent."""
    call = channel.unary_stream(f"/{SERVICE}/CountAndRefuse")(b"", timeout=5)
    received: list[object] = [await call.read()]

    error = await failure(call.read)

    assert (received, error.reason) == ([b"0"], Reason.JOB_NOT_FOUND)


async def test_a_defect_tells_nothing_of_the_inside(channel: Any) -> None:
    """The caller learns that it is a defect; the rest is in the log."""
    error = await failure(lambda: channel.unary_unary(f"/{SERVICE}/Crash")(b"", timeout=5))

    assert error.reason is Reason.INTERNAL
    assert "secret" not in error.message


@pytest.mark.parametrize("method", ["Echo", "Count", "AddUp"])
async def test_a_call_too_many_is_refused_and_the_others_served(method: str) -> None:
    """Whatever its form, and by name; once a place is free again, it is served."""
    add: Callable[[Any], None] = lambda raw: raw.add_generic_rpc_handlers((handlers(),))  # noqa: E731
    server = RpcServer([Service(SERVICE, add)], concurrent_calls=2)
    address = server.bind()
    await server.start()
    channel: Any
    async with open_channel(address) as channel:
        calls: dict[str, Callable[[], Any]] = {
            "Echo": lambda: channel.unary_unary(f"/{SERVICE}/Echo")(b"", timeout=5),
            "Count": lambda: drain(channel.unary_stream(f"/{SERVICE}/Count")(b"", timeout=5)),
            "AddUp": lambda: channel.stream_unary(f"/{SERVICE}/AddUp")(iter([b"a", b"b"]), timeout=5),
        }
        held = [channel.unary_unary(f"/{SERVICE}/Sleep")(b"", timeout=5) for _ in range(2)]
        await until_refused(channel)
        errors = [await failure(calls[method]) for _ in range(20)]
        for call in held:
            call.cancel()
        await until_served(channel)
        await calls[method]()
    await server.stop(0)

    assert {(type(error), error.reason) for error in errors} == {(LimitExceededError, Reason.LIMIT_EXCEEDED)}


async def until_refused(channel: Any) -> None:
    """Waits until all places are taken."""
    async with asyncio.timeout(5):
        while await served(channel):
            pass


async def until_served(channel: Any) -> None:
    """Waits until a place is free."""
    async with asyncio.timeout(5):
        while not await served(channel):
            pass


async def served(channel: Any) -> bool:
    """Whether a call is answered."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        await channel.unary_unary(f"/{SERVICE}/Echo")(b"", timeout=5)
        return True
    return False


async def test_a_call_ends_at_its_deadline(channel: Any) -> None:
    """A handler that hangs is not waited for."""
    error = await failure(lambda: channel.unary_unary(f"/{SERVICE}/Sleep")(b"", timeout=0.05))

    assert error.reason is Reason.DEADLINE_EXCEEDED


async def test_an_unknown_call_is_explained(channel: Any) -> None:
    """Another version at the far end is a likely cause."""
    error = await failure(lambda: channel.unary_unary(f"/{SERVICE}/Nothing")(b"", timeout=5))

    assert "another version" in error.message


async def test_the_sync_channel_speaks_the_same(address: str, spans: InMemorySpanExporter) -> None:
    """Programs without asyncio get the same answers, errors and spans."""

    def calls() -> tuple[bytes, list[bytes], bytes, HivefoldError]:
        channel: Any
        with open_sync_channel(address) as channel:
            echoed = channel.unary_unary(f"/{SERVICE}/Echo")(b"hi", timeout=5)
            counted = list(channel.unary_stream(f"/{SERVICE}/Count")(b"", timeout=5))
            added = channel.stream_unary(f"/{SERVICE}/AddUp")(iter([b"a", b"b"]), timeout=5)
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(f"/{SERVICE}/Refuse")(b"", timeout=5)
            return echoed, counted, added, error_from_rpc(caught.value, address)

    echoed, counted, added, error = await asyncio.to_thread(calls)

    assert (echoed, counted, added, error.reason) == (b"hi", [b"0", b"1", b"2"], b"ab", Reason.JOB_NOT_FOUND)
    assert len(await finished(spans, 8)) == 8


@pytest.mark.parametrize("method", ["Echo", "Count", "AddUp"])
async def test_client_and_server_share_one_trace(address: str, spans: InMemorySpanExporter, method: str) -> None:
    """The server's span is the client's child, whatever the form of the call."""
    channel: Any
    async with open_channel(address) as channel:
        match method:
            case "Echo":
                await channel.unary_unary(f"/{SERVICE}/Echo")(b"", timeout=5)
            case "Count":
                _ = [item async for item in channel.unary_stream(f"/{SERVICE}/Count")(b"", timeout=5)]
            case _:
                await channel.stream_unary(f"/{SERVICE}/AddUp")(iter([b"a"]), timeout=5)

    client, server = await both_ends(spans)
    assert server.parent is not None
    assert server.parent.span_id == client.context.span_id
    for span in (client, server):
        assert span.attributes is not None
        assert span.name == span.attributes["rpc.method"] == f"{SERVICE}/{method}"
        assert span.attributes["rpc.system.name"] == "grpc"
        assert span.attributes["rpc.response.status_code"] == "OK"
        assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("method", ["Refuse", "Crash", "CountAndRefuse"])
async def test_a_rich_error_is_not_marked_ok(address: str, spans: InMemorySpanExporter, method: str) -> None:
    """The published instrumentation says OK here; ours says what happened, at both ends."""
    channel: Any
    async with open_channel(address) as channel:
        if method == "CountAndRefuse":
            call = channel.unary_stream(f"/{SERVICE}/{method}")(b"", timeout=5)
            await failure(lambda: drain(call))
        else:
            await failure(lambda: channel.unary_unary(f"/{SERVICE}/{method}")(b"", timeout=5))

    for span in await both_ends(spans):
        assert span.attributes is not None
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes["rpc.response.status_code"] == ("INTERNAL" if method == "Crash" else "NOT_FOUND")


async def test_health_follows_the_server(address: str, channel: Any) -> None:
    """NOT_SERVING until told otherwise; for the server as a whole and by service."""
    server = RpcServer([Service(SERVICE, lambda raw: raw.add_generic_rpc_handlers((handlers(),)))])
    own = server.bind()
    await server.start()
    async with open_channel(own) as to_own:
        stub = health_pb2_grpc.HealthStub(to_own)
        before = await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=5)
        await server.set_serving(serving=True)
        after = [await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5) for name in ("", SERVICE)]
        await server.stop(0)

    assert before.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert {answer.status for answer in after} == {health_pb2.HealthCheckResponse.SERVING}


async def test_services_are_listed_by_reflection(channel: Any) -> None:
    """grpcurl and buf curl work without the protos."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = [item async for item in stub.ServerReflectionInfo(iter([request]), timeout=5)]

    assert {SERVICE, "grpc.health.v1.Health"} <= {s.name for s in answer.list_services_response.service}


async def test_a_taken_port_is_refused_or_passed_over(address: str) -> None:
    """A given port that is taken is an error; where any will do, the next free one."""
    port = int(address.rpartition(":")[2])
    server = RpcServer([])

    with pytest.raises(ConfigError, match=str(port)):
        server.bind(port=port)
    other = server.bind(port=port, next_free=True)

    assert int(other.rpartition(":")[2]) > port
    await server.stop(0)


async def test_nobody_there_is_explained() -> None:
    """A fleet that is not running is the most common error of all."""
    server = RpcServer([])
    address = server.bind()
    await server.stop(0)
    channel: Any
    async with open_channel(address) as channel:
        error = await failure(lambda: channel.unary_unary("/any/Call")(b"", timeout=2))

    assert error.reason in {Reason.SERVER_UNAVAILABLE, Reason.DEADLINE_EXCEEDED}
    assert address in error.message or error.reason is Reason.DEADLINE_EXCEEDED


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "example.org"])
async def test_nothing_listens_beyond_loopback(host: str) -> None:
    """No unauthenticated listener beyond loopback: the error names the host and a way that works."""
    with pytest.raises(ConfigError, match="SSH tunnel"):
        RpcServer([]).bind(host)

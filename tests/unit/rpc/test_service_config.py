"""What clients in all languages are told about retries fits the contract and works."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import ServiceDescriptor

from hivefold.errors import BrokerUnavailableError, Reason
from hivefold.rpc import RpcServer, Service, error_from_rpc, open_channel
from hivefold.rpc.channel import service_config
from hivefold.v1 import (
    blob_service_pb2,
    fleet_service_pb2,
    job_service_pb2,
    log_service_pb2,
    model_service_pb2,
    node_service_pb2,
)

FILES = (
    blob_service_pb2,
    fleet_service_pb2,
    job_service_pb2,
    log_service_pb2,
    model_service_pb2,
    node_service_pb2,
)


def services() -> list[ServiceDescriptor]:
    return [service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()]


def test_calls_of_one_message_are_retried_and_streams_are_not() -> None:
    """Every service is named; every method that streams is taken out again."""
    retried, plain = json.loads(service_config())["methodConfig"]
    streaming = {
        (service.full_name, method.name)
        for service in services()
        for method in service.methods
        if method.client_streaming or method.server_streaming
    }

    assert {entry["service"] for entry in retried["name"]} == {service.full_name for service in services()}
    assert {(entry["service"], entry["method"]) for entry in plain["name"]} == streaming
    assert "retryPolicy" not in plain
    assert retried["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    assert retried["retryPolicy"]["maxAttempts"] <= 5


class Flaky:
    """Refuses so many calls as unavailable, then answers."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.calls = 0

    async def serve(self, request: bytes, context: Any) -> bytes:
        self.calls += 1
        if self.calls <= self.refusals:
            raise BrokerUnavailableError("not now")
        return request

    def add(self, server: grpc.aio.Server) -> None:
        method: Any = grpc.unary_unary_rpc_method_handler(self.serve)
        handler = grpc.method_handlers_generic_handler("hivefold.v1.JobService", {"GetJob": method})
        server.add_generic_rpc_handlers((handler,))


@pytest.fixture
async def flaky() -> AsyncIterator[tuple[Flaky, Any]]:
    flaky = Flaky(1)
    server = RpcServer([Service("hivefold.v1.JobService", flaky.add)])
    address = server.bind()
    await server.start()
    async with open_channel(address) as channel:
        yield flaky, channel
    await server.stop(0)


async def test_what_is_unavailable_is_tried_again(flaky: tuple[Flaky, Any]) -> None:
    """A server that is away for a moment is not noticed."""
    service, channel = flaky

    assert await channel.unary_unary("/hivefold.v1.JobService/GetJob")(b"x", timeout=10) == b"x"
    assert service.calls == 2


async def test_retries_end_with_the_deadline(flaky: tuple[Flaky, Any]) -> None:
    """The deadline spans all tries."""
    service, channel = flaky
    service.refusals = 1000
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/hivefold.v1.JobService/GetJob")(b"x", timeout=0.3)

    assert service.calls <= 5
    assert error_from_rpc(caught.value, "x").reason in {Reason.DEADLINE_EXCEEDED, Reason.BROKER_UNAVAILABLE}

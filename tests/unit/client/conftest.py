"""A client and the server that it talks to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from hivefold import limits
from hivefold.client import Fleet, connect
from hivefold.rpc import RpcServer, Service
from hivefold.v1.job_service_pb2_grpc import add_JobServiceServicer_to_server
from tests.unit.client.scripted import Scripted


@pytest.fixture
def script() -> Scripted:
    return Scripted()


@pytest.fixture
async def address(script: Scripted) -> AsyncIterator[str]:
    add: Callable[[Any], None] = lambda raw: add_JobServiceServicer_to_server(script, raw)  # noqa: E731
    server = RpcServer([Service("hivefold.v1.JobService", add)])
    address = server.bind()
    await server.start()
    yield address
    await server.stop(0)


@pytest.fixture
async def fleet(address: str) -> AsyncIterator[Fleet]:
    async with connect(address) as fleet:
        yield fleet


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WATCH_RETRY_MS", 1)

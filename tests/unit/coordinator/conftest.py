"""A coordinator over fakes: its log, its broker, and itself with its gRPC server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from hivefold.bus.memory import MemoryBroker
from hivefold.log.memory import MemoryEventLog
from tests.unit.coordinator.serving import Served, serving


@pytest.fixture
def log() -> MemoryEventLog:
    return MemoryEventLog()


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
async def served(log: MemoryEventLog, broker: MemoryBroker) -> AsyncIterator[Served]:
    async with serving(log, broker) as served:
        yield served

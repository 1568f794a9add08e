"""The services as a client meets them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.core.digest import state_digest
from coordinator.replay import replay
from hivefold.bus.memory import MemoryBroker
from hivefold.client import InferOptions, JobOptions
from hivefold.errors import ConflictError, DataRefusedError, HivefoldError, InvalidRequestError, NotFoundError, Reason
from hivefold.ids import NodeId
from hivefold.log.memory import MemoryEventLog
from hivefold.v1 import feed_pb2, fleet_pb2, job_pb2, log_service_pb2
from tests.samples import mean_model
from tests.unit.coordinator.fleet import ScriptedNode, until, working
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

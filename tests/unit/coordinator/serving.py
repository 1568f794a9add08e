"""A coordinator in one process with its real gRPC server on a loopback port, over the fake broker and log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from coordinator.feed import Feed
from coordinator.index import JobIndex
from coordinator.lead import Ends, Leadership, LeadSettings, take_lead
from coordinator.presence import PresenceSettings
from coordinator.servicers import Backing, services
from coordinator.writer import Writer
from hivefold.blobs.keys import MemoryKeys
from hivefold.blobs.memory import MemoryChunks
from hivefold.bus.memory import MemoryBroker
from hivefold.client import Fleet, connect
from hivefold.clock import SystemClock
from hivefold.entropy import SeededEntropy
from hivefold.log.memory import MemoryEventLog
from hivefold.rpc import RpcServer
from tests.fixtures.keys import memory_job_keys


@dataclass(frozen=True)
class Served:
    """A running coordinator and a client of it."""

    address: str
    fleet: Fleet
    lead: Leadership
    chunks: MemoryChunks
    keys: MemoryKeys

    @property
    def writer(self) -> Writer:
        """The term's writer."""
        return self.lead.writer


@asynccontextmanager
async def serving(
    log: MemoryEventLog,
    broker: MemoryBroker,
    chunks: MemoryChunks | None = None,
    index_file: Path | None = None,
    *,
    lost_after_ms: int = 4000,
) -> AsyncIterator[Served]:
    """A coordinator that leads and serves; it dies without a word at the end."""
    connection = broker.connect()
    stored = chunks or MemoryChunks()
    keys = memory_job_keys(stored)
    store = keys.store
    assert isinstance(store, MemoryKeys)
    ends = Ends(log, connection.signals(), connection.work_sender(), connection.result_receiver(), keys)
    settings = PresenceSettings(
        "127.0.0.1:1", suspect_after_ms=lost_after_ms // 2, lost_after_ms=lost_after_ms, heartbeat_ms=20
    )
    clock, entropy = SystemClock(), SeededEntropy((await log.head()).sequence)
    checkpoints = connection.checkpoints()
    backing = Backing(log, ends.results, keys, clock, entropy, checkpoints, durability="fsync-always")
    rpc = RpcServer(services(backing))
    address = rpc.bind()
    lead = await take_lead(ends, clock, entropy, LeadSettings("test", "0", settings))
    backing.lead(lead)
    await rpc.start()
    feed = Feed(lead.writer, log, connection.event_sender(), ends.signals)
    tasks = [asyncio.create_task(part) for part in (*lead.parts(), feed.run())]
    if index_file is not None:
        backing.index = JobIndex(index_file, log, lambda: backing.source)
        tasks.append(asyncio.create_task(backing.index.run()))
    try:
        async with connect(address) as fleet:
            yield Served(address, fleet, lead, stored, store)
    finally:
        await rpc.stop(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

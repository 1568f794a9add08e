"""Coordinators of one group in one process: the real member, over the fake log, lease and broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from coordinator.lead import Ends, Leadership, LeadSettings
from coordinator.member import Member
from coordinator.presence import PresenceSettings
from coordinator.replay import NOTHING, Replayed, replay
from coordinator.standby import Standby
from hivefold.bus.memory import MemoryBroker, MemoryConnection
from hivefold.clock import SystemClock
from hivefold.entropy import SeededEntropy
from hivefold.lease.campaign import Campaign
from hivefold.lease.memory import LeaseStore, MemoryLease
from hivefold.lease.port import Holder
from hivefold.log.memory import MemoryEventLog
from hivefold.log.port import Stored
from tests.fixtures.keys import memory_job_keys


async def folded(log: MemoryEventLog) -> Replayed:
    """The fold of the whole log."""
    head = await log.head()
    return await replay(log, up_to=head.sequence) if head.sequence else NOTHING


class Coordinator:
    """One member, with a connection to log and lease of its own; a term has its own to the bus."""

    def __init__(self, name: str, records: list[Stored], leases: LeaseStore, broker: MemoryBroker) -> None:
        self.name = name
        self.log = MemoryEventLog(records)
        self.lease = MemoryLease(leases)
        self.current: Leadership | Standby | None = None
        self.told_to_stop = asyncio.Event()
        self.open_terms = 0
        self._broker = broker
        self._connection: MemoryConnection | None = None
        clock, entropy = SystemClock(), SeededEntropy(len(name) + ord(name[0]))
        self.campaign = Campaign(self.lease, clock, Holder(name, f"{name}:1", f"token of {name}"))
        settings = PresenceSettings(f"{name}:1", suspect_after_ms=2000, lost_after_ms=4000, heartbeat_ms=20)
        self.member = Member(
            log=self.log,
            campaign=self.campaign,
            open_ends=self._ends,
            clock=clock,
            entropy=entropy,
            settings=LeadSettings(name, "0", settings),
            stage=self,
        )
        self.task = asyncio.create_task(self._run())

    @property
    def leads(self) -> bool:
        """Whether it leads and may act."""
        return isinstance(self.current, Leadership) and self.current.writer.leading

    @property
    def leadership(self) -> Leadership:
        """The term that it leads."""
        assert isinstance(self.current, Leadership)
        return self.current

    def follow(self, standby: Standby) -> None:
        """As a Stage."""
        self.current = standby

    def lead(self, lead: Leadership) -> None:
        """As a Stage."""
        self.current = lead

    def kill(self) -> None:
        """As kill -9: its connections go with it."""
        self.task.cancel()
        self.lease.disconnect()
        if self._connection is not None:
            self._connection.disconnect()

    async def _run(self) -> None:
        await self.member.run(await folded(self.log), self.told_to_stop)

    @asynccontextmanager
    async def _ends(self) -> AsyncIterator[Ends]:
        connection = self._connection = self._broker.connect()
        self.open_terms += 1
        try:
            keys = memory_job_keys()
            yield Ends(self.log, connection.signals(), connection.work_sender(), connection.result_receiver(), keys)
        finally:
            self.open_terms -= 1
            connection.disconnect()


@asynccontextmanager
async def group(*names: str, ttl_ms: int = 400) -> AsyncIterator[list[Coordinator]]:
    """Coordinators of one group; they die without a word at the end."""
    records: list[Stored] = []
    leases, broker = LeaseStore(SystemClock(), ttl_ms), MemoryBroker()
    coordinators = [Coordinator(name, records, leases, broker) for name in names]
    try:
        yield coordinators
    finally:
        for coordinator in coordinators:
            coordinator.kill()
        await asyncio.gather(*(coordinator.task for coordinator in coordinators), return_exceptions=True)

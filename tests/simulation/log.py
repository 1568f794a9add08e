"""The broker's log and lease in the simulation: the fakes in memory, behind connections that take time and break."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextvars import Context

from hivefold.errors import AppendUnresolvedError, BrokerUnavailableError, LogFullError
from hivefold.lease.memory import LeaseStore, MemoryLease
from hivefold.log.entries import check_entries
from hivefold.log.memory import MemoryEventLog
from hivefold.log.port import Entry, Stored
from tests.simulation.checker import Checker


class LogStore:
    """The broker's side of the log: what every coordinator's connection shares."""

    sync_always = True
    """Whether what is acknowledged is on the disk, as hivefold demands of its server."""

    def __init__(self, checker: Checker, draw: random.Random) -> None:
        self.records: list[Stored] = []
        self.full = False
        self.checker = checker
        self.draw = draw
        self.slowness_s = 0.002
        self.cuts = 0
        """How often the power failed."""
        self.hints: list[Callable[[], None]] = []
        """Who wants to be told that there may be more."""

    def cut_power(self) -> None:
        """What is on its way is lost, and whether it was is not told; what is not on the disk is gone, too."""
        self.cuts += 1
        if not self.sync_always:
            del self.records[max(1, len(self.records) - self.draw.randint(0, 8)) :]
            self.checker.log_ends_at(len(self.records))


class SimLog(MemoryEventLog):
    """One coordinator's connection to the log. An append that is under way arrives even when its sender has died."""

    def __init__(self, shared: LogStore) -> None:
        super().__init__(shared.records)
        self._shared = shared
        self._cut_off = False

    async def append(self, entries: Sequence[Entry], *, expected_sequence: int, term_sequence: int) -> None:
        """Stores all entries or none."""
        check_entries(entries)
        if self._appending:
            raise RuntimeError("one append at a time: another one is in flight")
        self._appending = True
        try:
            await self._send(entries, expected_sequence, term_sequence)
        finally:
            self._appending = False

    async def _send(self, entries: Sequence[Entry], expected_sequence: int, term_sequence: int) -> None:
        cuts = self._shared.cuts
        on_its_way = self._arrive(tuple(entries), expected_sequence, term_sequence)
        request = asyncio.get_running_loop().create_task(on_its_way, context=Context())
        request.add_done_callback(_look)
        await asyncio.shield(request)
        await self._take_time()
        self._require_power(cuts)
        if self._cut_off:
            raise AppendUnresolvedError("the append was not answered and could not be looked up")

    async def _arrive(self, entries: Sequence[Entry], expected_sequence: int, term_sequence: int) -> None:
        """What the broker does, whatever has become of the sender."""
        cuts = self._shared.cuts
        await self._take_time()
        await self._answer()
        self._require_power(cuts)
        self._store(entries, expected_sequence, term_sequence)

    def cut(self) -> None:
        """The connection is down: what is on its way is not stored, or its answer is lost."""
        self._cut_off = True

    def mend(self) -> None:
        """The connection is up."""
        self._cut_off = False

    async def _answer(self) -> None:
        await super()._answer()
        if self._cut_off:
            await asyncio.sleep(self._shared.draw.uniform(0.1, 2.0))
        self._require_network()

    def _require_network(self) -> None:
        if self._cut_off:
            raise BrokerUnavailableError("the connection to the log is down; wait for the reconnect")

    def _require_power(self, cuts: int) -> None:
        if self._shared.cuts != cuts:
            raise AppendUnresolvedError("the append was not answered and could not be looked up")

    async def _take_time(self) -> None:
        await asyncio.sleep(self._shared.draw.expovariate(1 / self._shared.slowness_s))

    def _store(self, entries: Sequence[Entry], expected_sequence: int, term_sequence: int) -> None:
        if self._shared.full:
            raise LogFullError("the log is full; raise log_max_bytes")
        before = len(self.store)
        try:
            super()._store(entries, expected_sequence, term_sequence)
        finally:
            self._shared.checker.stored(self.store[before:])
            for hint in tuple(self._shared.hints):
                hint()


def _look(request: asyncio.Task[None]) -> None:
    """Whoever asked may be dead: then nobody else looks at what became of it."""
    if not request.cancelled():
        request.exception()


class SimLease(MemoryLease):
    """One coordinator's connection to the lease."""

    def __init__(self, leases: LeaseStore, shared: LogStore) -> None:
        super().__init__(leases)
        self._shared = shared

    async def _answer(self) -> None:
        await asyncio.sleep(self._shared.draw.expovariate(1 / self._shared.slowness_s))
        await super()._answer()

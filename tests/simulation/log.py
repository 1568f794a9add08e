"""The broker's log and lease in the simulation: the fakes in memory, behind connections that take time and break."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import Context
from dataclasses import replace

from hivefold.errors import AppendUnresolvedError, BrokerUnavailableError, LogFullError
from hivefold.lease.memory import LeaseStore, MemoryLease
from hivefold.log.entries import check_entries, check_follows
from hivefold.log.memory import MemoryEventLog
from hivefold.log.port import CLOSE_SUBJECT, Entry, Stored
from hivefold.log.segments import Segment
from tests.simulation.archive import SimArchive
from tests.simulation.checker import Checker


class LogStore:
    """The broker's side of the log: what every coordinator's connection shares."""

    sync_always = True
    """Whether what is acknowledged is on the disk, as hivefold demands of its server."""

    def __init__(self, checker: Checker, draw: random.Random, segment_records: int) -> None:
        self.records: list[Stored] = []
        """All of them: those before `kept_from` can be read in the archive only."""
        self.kept_from = 1
        self.segment_records = segment_records
        self.segments = [_segment(1, 1)]
        """The streams, in order, as far as they were not removed."""
        self.archive = SimArchive()
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

    def stored(self, records: Sequence[Stored]) -> None:
        """These were added at the end of the last segment."""
        last = self.segments[-1]
        if records and last.sealed:
            self.checker.fail(f"record {records[0].sequence} is stored in {last.stream}, which is sealed")
        self.segments[-1] = replace(last, last=len(self.records))
        self.checker.stored(records)
        for hint in tuple(self.hints):
            hint()

    @property
    def archived(self) -> bool:
        """Whether the archive has all that was closed."""
        files = self.archive.files()
        return (files[-1].last if files else 0) == self.segments[-1].first - 1

    def seal(self) -> None:
        """The last segment takes no more."""
        self.segments[-1] = replace(self.segments[-1], sealed=True)

    def make_segment(self, first: int) -> None:
        """A segment goes on after the last, from a record on."""
        before = self.segments[-1]
        self.segments.append(_segment(before.number + 1, first))
        self.checker.proofs.made(self.segments[-1], before)

    def remove(self, segment: Segment) -> None:
        """The oldest segment leaves the broker."""
        if segment in self.segments:
            self.checker.proofs.removed(segment, self.records[segment.first - 1 : segment.last], self.archive)
            self.segments.remove(segment)
            self.kept_from = self.segments[0].first


def _segment(number: int, first: int) -> Segment:
    return Segment(number, first, first - 1, size_bytes=0, max_bytes=1 << 62, replicas=1, sealed=False)


class SimLog(MemoryEventLog):
    """One coordinator's connection to the log. An append that is under way arrives even when its sender has died."""

    def __init__(self, shared: LogStore) -> None:
        super().__init__(shared.records)
        self._shared = shared
        self._cut_off = False
        self.segment_records = shared.segment_records

    @property
    def segments(self) -> Sequence[Segment]:
        """Those on the broker, in order."""
        return tuple(self._shared.segments)

    async def remove(self, segment: Segment) -> None:
        """Takes a sealed segment from the broker."""
        await self._take_time()
        self._require_network()
        self._shared.remove(segment)

    async def read(self, *, after: int, up_to: int) -> AsyncIterator[Sequence[Stored]]:
        """From the archive what is no longer on the broker."""
        while after < up_to and after + 1 < self._shared.kept_from:
            async for page in self._shared.archive.read(after=after, up_to=min(up_to, self._shared.kept_from - 1)):
                after = page[-1].sequence
                yield page
        async for page in super().read(after=after, up_to=up_to):
            yield page

    async def append(self, entries: Sequence[Entry], *, expected_sequence: int, term_sequence: int) -> None:
        """Stores all entries or none."""
        check_entries(entries)
        if self._appending:
            raise RuntimeError("one append at a time: another one is in flight")
        self._appending = True
        try:
            if expected_sequence and self.store[expected_sequence - 1 : expected_sequence][0].subject == CLOSE_SUBJECT:
                check_follows(True, entries)
                await self._roll(expected_sequence)
            await self._send(entries, expected_sequence, term_sequence)
        finally:
            self._appending = False

    async def _roll(self, closed: int) -> None:
        """Step by step, as hivefold.log.segments does: whoever dies between two leaves the rest to who comes next."""
        for step in (self._shared.seal, lambda: self._shared.make_segment(closed + 1)):
            await self._take_time()
            self._require_network()
            if self._shared.segments[-1].first <= closed:
                step()

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
            self._shared.stored(self.store[before:])


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
        if not self.connected:
            raise BrokerUnavailableError("the connection is down; wait for the reconnect")

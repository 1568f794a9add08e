"""The event log in memory: for tests, the simulation and reading exported logs.

Proved against the real thing by tests/conformance/test_event_log.py.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from itertools import islice, takewhile
from operator import attrgetter

from hivefold.errors import (
    AppendUnresolvedError,
    BrokerUnavailableError,
    FencedError,
    LogCorruptError,
    LogFullError,
)
from hivefold.limits import READ_PAGE_RECORDS
from hivefold.log.entries import check_entries, check_follows
from hivefold.log.port import CLOSE_SUBJECT, TERM_SUBJECT, Entry, Head, OpenSegment, Stored


class Fault(StrEnum):
    """What the next append meets instead of success."""

    LOST_ACK = "LOST_ACK"
    """Stored, but nobody can tell: AppendUnresolvedError."""
    LOST_REQUEST = "LOST_REQUEST"
    """Not stored, but nobody can tell: AppendUnresolvedError."""
    REFUSED = "REFUSED"
    """Not stored, may be repeated: BrokerUnavailableError."""
    FULL = "FULL"
    """Not stored: LogFullError."""
    DEPOSED = "DEPOSED"
    """Another coordinator started a term just before: FencedError."""


class MemoryEventLog:
    """EventLog in a list. Logs made with the same `store` share it, as connections to one broker do."""

    def __init__(self, store: list[Stored] | None = None) -> None:
        self.store: list[Stored] = [] if store is None else store
        self.capacity_records: int | None = None
        """How many records there is room for; None for any number."""
        self.segment_records: int | None = None
        """How many records fill a segment; None for any number."""
        self._segment = 1
        self._segment_start = 0
        self._faults: deque[Fault] = deque()
        self._open = asyncio.Event()
        self._open.set()
        self._appending = False
        self._closed = False
        self._scanned = 0
        self._term_sequence = 0

    @property
    def open_segment(self) -> OpenSegment:
        """The segment to which appends go."""
        length = self._head().sequence - self._segment_start
        return OpenSegment(self._segment, self.segment_records is not None and length >= self.segment_records)

    async def head(self) -> Head:
        """The end of the log."""
        await self._answer()
        return self._head()

    async def append(self, entries: Sequence[Entry], *, expected_sequence: int, term_sequence: int) -> None:
        """Stores all entries or none right after `expected_sequence`."""
        check_entries(entries)
        if self._appending:
            raise RuntimeError("one append at a time: another one is in flight")
        self._appending = True
        try:
            await self._answer()
            self._store(entries, expected_sequence, term_sequence)
        finally:
            self._appending = False

    async def read(self, *, after: int, up_to: int) -> AsyncIterator[Sequence[Stored]]:
        """Yields pages of the records after `after` up to and including `up_to`."""
        position = after + 1
        while position <= up_to:
            await self._answer()
            start = bisect_left(self.store, position, key=attrgetter("sequence"))
            page = self.store[start : start + min(READ_PAGE_RECORDS, up_to - position + 1)]
            sound = [record for want, record in enumerate(page, position) if record.sequence == want]
            if not sound:
                raise LogCorruptError(f"record {position} is missing from the log", position=position)
            position += len(sound)
            yield sound

    async def find_first(self, subject: str) -> int:
        """Position of the first record stored under a subject; 0 where there is none."""
        await self._answer()
        return next((record.sequence for record in self.store if record.subject == subject), 0)

    async def close(self) -> None:
        """Makes every later call fail."""
        self._closed = True
        self._open.set()

    def inject(self, *faults: Fault) -> None:
        """The next appends meet these, one each, in order."""
        self._faults.extend(faults)

    def hold(self) -> None:
        """Lets calls wait until `release`, as a slow broker does."""
        self._open.clear()

    def release(self) -> None:
        """Lets held calls go on."""
        self._open.set()

    def lose(self, sequence: int) -> None:
        """Makes a gap: the record is gone, its neighbours stay."""
        self.store[:] = [record for record in self.store if record.sequence != sequence]

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        await self._open.wait()
        if self._closed:
            raise BrokerUnavailableError("the log is closed; open it again")

    def _head(self) -> Head:
        if len(self.store) < self._scanned:
            self._scanned = self._term_sequence = self._segment_start = 0
            self._segment = 1
        for record in islice(self.store, self._scanned, None):
            if record.subject == TERM_SUBJECT:
                self._term_sequence = record.sequence
            elif record.subject == CLOSE_SUBJECT:
                self._segment, self._segment_start = self._segment + 1, record.sequence
        self._scanned = len(self.store)
        return Head(self.store[-1].sequence if self.store else 0, self._term_sequence)

    def _store(self, entries: Sequence[Entry], expected_sequence: int, term_sequence: int) -> None:
        before = self.store[expected_sequence - 1 : expected_sequence] if expected_sequence else []
        check_follows(bool(before) and before[0].subject == CLOSE_SUBJECT, entries)
        fault = self._faults.popleft() if self._faults else None
        match fault:
            case Fault.REFUSED:
                raise BrokerUnavailableError("the broker did not answer; try again")
            case Fault.FULL:
                raise LogFullError("the log is full; raise log_max_bytes")
            case Fault.LOST_REQUEST:
                raise AppendUnresolvedError("the append was not answered and could not be looked up")
            case Fault.DEPOSED:
                self._extend([Entry(TERM_SUBJECT, b"another coordinator")])
            case Fault.LOST_ACK | None:
                pass
        stored = self._stored(entries, expected_sequence)
        if stored == len(entries):
            return
        self._check_fence(expected_sequence + stored, term_sequence)
        if self.capacity_records is not None and len(self.store) + len(entries) - stored > self.capacity_records:
            raise LogFullError("the log is full")
        self._extend(entries[stored:])
        if fault is Fault.LOST_ACK:
            raise AppendUnresolvedError("the append was not answered and could not be looked up")

    def _stored(self, entries: Sequence[Entry], after: int) -> int:
        """How many of these very entries were stored there by an earlier call."""
        there = self.store[after : after + len(entries)]
        pairs = zip(entries, there, strict=False)
        same = takewhile(lambda pair: pair[0] == Entry(pair[1].subject, pair[1].data), pairs)
        return sum(1 for _ in same)

    def _check_fence(self, expected_sequence: int, term_sequence: int) -> None:
        head = self._head()
        if head.sequence < expected_sequence:
            raise LogCorruptError(
                f"the log ends at {head.sequence}, before record {expected_sequence} that was read from it",
                position=head.sequence + 1,
            )
        if head != Head(expected_sequence, term_sequence):
            raise FencedError("another coordinator wrote to the log; this one stops leading")

    def _extend(self, entries: Sequence[Entry]) -> None:
        start = self._head().sequence + 1
        self.store.extend(Stored(at, entry.subject, entry.data) for at, entry in enumerate(entries, start))

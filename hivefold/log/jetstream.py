"""The event log on a NATS JetStream stream (docs/log-format.md has the bytes)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from enum import Enum, auto
from typing import Any, Final

from hivefold.bus import api
from hivefold.bus.batch import Outgoing, store_batch, store_chain
from hivefold.bus.link import Link
from hivefold.errors import (
    AppendUnresolvedError,
    BrokerUnavailableError,
    FencedError,
    LogCorruptError,
    LogError,
    LogFullError,
)
from hivefold.failpoints import Failpoint, reach
from hivefold.limits import (
    APPEND_BATCH_BYTES,
    APPEND_CHAIN_RECORDS,
    APPEND_OVERHEAD_BYTES,
    APPEND_RETRY_MAX_MS,
    APPEND_RETRY_MS,
)
from hivefold.log.archive import Archive
from hivefold.log.entries import check_entries, check_follows
from hivefold.log.port import CLOSE_SUBJECT, TERM_SUBJECT, Entry, Head, OpenSegment, Stored
from hivefold.log.reading import PageReader, leader_record
from hivefold.log.segments import Segment, Segments
from hivefold.log.stream import LogSettings


async def open_log(link: Link, settings: LogSettings | None = None) -> JetStreamEventLog:
    """Opens the log on a connection of its own, creating its first stream where there is none.

    Raises ConfigError when the server or an existing stream cannot hold a log, LogCorruptError,
    BrokerUnavailableError. The link MUST come from hivefold.bus.connection; the log closes it.
    """
    settings = settings or LogSettings()
    segments = Segments(link, settings)
    await segments.prepare()
    return JetStreamEventLog(link, settings, segments, await PageReader.open(link))


class _Outcome(Enum):
    STORED = auto()
    IN_FLIGHT = auto()
    """Refused because something else is being decided: the same may be tried again at once."""
    UNKNOWN = auto()
    """No answer, or one that an earlier try of the same entries may have caused."""
    FULL = auto()


_OUTCOMES: Final = {
    api.WRONG_LAST: _Outcome.UNKNOWN,
    10070: _Outcome.UNKNOWN,  # the record before it in a chain was refused
    10164: _Outcome.IN_FLIGHT,
    10176: _Outcome.UNKNOWN,  # the batch is incomplete: the server restarted in its middle
    10201: _Outcome.UNKNOWN,  # the batch holds a duplicate
    **dict.fromkeys(api.STORAGE_SHORT, _Outcome.FULL),
}
"""What JetStream's error codes say about an append; any other is a defect or a changed stream."""


class JetStreamEventLog:
    """EventLog over the streams of its segments."""

    def __init__(self, link: Link, settings: LogSettings, segments: Segments, pages: PageReader) -> None:
        self._link = link
        self._settings = settings
        self._segments = segments
        self._pages = pages
        self._archive = Archive(settings.archive)
        self._appending = False
        self._known_end = -1
        """Where this handle's last append ended: no record that closes a segment is there unless it wrote it."""
        self._closed_at = -1

    @property
    def open_segment(self) -> OpenSegment:
        """The segment to which appends go, as this handle knows it."""
        found = self._segments.open_segment
        return OpenSegment(found.number + 1, full=False) if self._segments.last.last == self._closed_at else found

    @property
    def segments(self) -> Sequence[Segment]:
        """The segments on the broker, as this handle knows them."""
        return self._segments.all

    async def look_at_segments(self) -> Sequence[Segment]:
        """The segments on the broker as they are now. Raises BrokerUnavailableError."""
        return await self._segments.look()

    async def head(self) -> Head:
        """The end of the log, as the stream's leader has it."""
        while True:
            last = self._segments.last
            # In this order a record between the two answers can only make the head newer than the term.
            term_sequence = await self._last_term()
            info = await self._ask(f"STREAM.INFO.{last.stream}")
            if not info["config"].get("sealed"):
                return Head(int(info["state"]["last_seq"]), term_sequence)
            await self._segments.refresh()
            if self._segments.last == last:
                return Head(last.last, term_sequence)

    async def append(self, entries: Sequence[Entry], *, expected_sequence: int, term_sequence: int) -> None:
        """Stores all entries or none right after `expected_sequence`; see EventLog.append."""
        check_entries(entries)
        if self._appending:
            raise RuntimeError("one append at a time: another one is in flight")
        self._appending = True
        try:
            head = Head(expected_sequence, term_sequence)
            fence = term_sequence
            if await self._is_closed_at(expected_sequence):
                check_follows(True, entries)
                fence = await self._roll(head)
            await self._append(entries, head, fence)
            self._note(entries, expected_sequence)
        finally:
            self._appending = False

    async def read(self, *, after: int, up_to: int) -> AsyncIterator[Sequence[Stored]]:
        """Yields pages of the records after `after` up to and including `up_to`; see EventLog.read.

        Raises SegmentMissingError where a part is neither on the broker nor in the archive.
        """
        position = after + 1
        while position <= up_to:
            segment = self._segments.holding(position)
            if segment is None:
                pages = self._archive.read(after=position - 1, up_to=up_to)
            else:
                last = up_to if segment is self._segments.last else min(up_to, segment.last)
                pages = self._pages.read(segment.stream, position - 1, last)
            try:
                async for page in pages:
                    position = page[-1].sequence + 1
                    yield page
            except LogCorruptError as error:
                # Where the segment was closed or taken away meanwhile, the log goes on elsewhere.
                await self._segments.refresh()
                if error.position != position or _place(self._segments.holding(position)) == _place(segment):
                    raise

    async def find_first(self, subject: str) -> int:
        """Position of the first record stored under a subject; 0 where there is none.

        What is only in the archive is searched from its beginning.
        """
        if missing := self._segments.all[0].first - 1:
            async for page in self._archive.read(after=0, up_to=missing):
                for record in page:
                    if record.subject == subject:
                        return record.sequence
        for segment in self._segments.all:
            found = await self._found(segment.stream, {"seq": segment.first, "next_by_subj": subject})
            if found:
                return found
        return 0

    async def remove(self, segment: Segment) -> None:
        """Takes a sealed segment from the broker for good: it MUST be archived. Raises BrokerUnavailableError."""
        await self._segments.remove(segment)

    async def close(self) -> None:
        """Closes the connection; pending calls fail."""
        await self._link.close()

    # -- segments -----------------------------------------------------------------

    async def _is_closed_at(self, sequence: int) -> bool:
        """Whether the record at `sequence` closed a segment: looked up unless this handle wrote it."""
        if not sequence or sequence == self._known_end:
            return sequence == self._closed_at and sequence > 0
        record = await self._record(sequence)
        if record is None:  # perhaps in a segment that another coordinator opened
            await self._segments.refresh()
            record = await self._record(sequence)
        return record is not None and record.subject == CLOSE_SUBJECT

    async def _roll(self, head: Head) -> int:
        """Has the next segment made; gives the fence of its first record.

        The closed segment changes no more, so whether the caller knows its last term is found out by asking. In the new
        stream nothing is under TERM_SUBJECT yet: 0 is right there, and any other fence is refused, as it must be.
        """
        await self._segments.roll(head.sequence)
        reach(Failpoint.AFTER_ROLL)
        return 0 if head.term_sequence == await self._last_term(up_to=head.sequence) else head.sequence + 1

    def _note(self, entries: Sequence[Entry], after: int) -> None:
        size = sum(len(entry.data) + APPEND_OVERHEAD_BYTES for entry in entries)
        self._known_end = after + len(entries)
        self._segments.stored(self._known_end, size)
        self._closed_at = self._known_end if entries[-1].subject == CLOSE_SUBJECT else -1

    async def _record(self, sequence: int) -> Stored | None:
        """The record at a position, as the leader of its stream has it; None where nothing is, or no longer."""
        segment = self._segments.holding(sequence)
        return await leader_record(self._link, segment.stream, sequence) if segment is not None else None

    # -- append -------------------------------------------------------------------

    async def _append(self, entries: Sequence[Entry], head: Head, fence: int) -> None:
        """Tries the same entries with the same fence until their fate is known.

        Trying again is safe at any time: the expectation is never refreshed, so a record can be
        stored by one try only; any later one is refused, and the record then found stored.
        """
        if not self._link.is_connected:
            raise BrokerUnavailableError("the NATS connection is down; wait for the reconnect")
        give_up_at = asyncio.get_running_loop().time() + self._settings.resolve_timeout_s
        chained = self._may_chain(entries)
        wait_ms = APPEND_RETRY_MS
        rest = entries
        while True:
            outcome = await self._try(rest, Head(head.sequence, fence), chained)
            if outcome is _Outcome.STORED:
                return
            if outcome is not _Outcome.IN_FLIGHT:
                stored = await self._look_back(rest, head)
                rest, head = rest[stored:], Head(head.sequence + stored, head.term_sequence)
            if not rest:
                return
            if outcome is _Outcome.FULL and len(rest) == len(entries):
                raise LogFullError("the log is full: raise log_max_bytes, or free the disk of the NATS server")
            if outcome is _Outcome.FULL or asyncio.get_running_loop().time() >= give_up_at:
                raise AppendUnresolvedError(
                    f"the append after record {head.sequence} could not be completed within "
                    f"{self._settings.resolve_timeout_s:g} s; restart, the log will tell"
                )
            chained = False  # a batch names its own reason where it is refused
            await asyncio.sleep(wait_ms / 1000)
            wait_ms = min(APPEND_RETRY_MAX_MS, wait_ms * 2)

    def _may_chain(self, entries: Sequence[Entry]) -> bool:
        """Whether these go out as a chain: few, far from the size limit, where a chain could be cut in two.

        With replicas never: the server refuses a fence while the one before it is being decided.
        """
        size = sum(len(entry.data) + APPEND_OVERHEAD_BYTES for entry in entries)
        few = 1 < len(entries) <= APPEND_CHAIN_RECORDS
        return few and self._segments.last.replicas == 1 and self._segments.room_bytes - size > APPEND_BATCH_BYTES

    async def _try(self, entries: Sequence[Entry], head: Head, chained: bool) -> _Outcome:
        timeout_s = self._settings.append_timeout_s
        try:
            if chained:
                name = self._link.new_inbox().rpartition(".")[2].encode()
                stored = await store_chain(self._link, _linked(entries, head, name), timeout_s)
            else:
                stored = await store_batch(self._link, _fenced(entries, head), timeout_s)
        except BrokerUnavailableError:
            return _Outcome.UNKNOWN
        except api.ApiError as error:
            return _outcome_of(error)
        want = head.sequence + len(entries)
        if stored != want:
            raise LogCorruptError(f"the broker stored record {want} at {stored}", position=head.sequence + 1)
        return _Outcome.STORED

    async def _look_back(self, entries: Sequence[Entry], head: Head) -> int:
        """How many of the entries are stored after `head`; 0 with the fence still holding.

        Raises FencedError when another writer's record is there, LogCorruptError when the log ends
        before `head`. A silent broker counts as 0: the next try settles it.
        """
        try:
            if await self._holds(entries[-1], head.sequence + len(entries)):
                return len(entries)
            for done, entry in enumerate(entries):
                if not await self._holds(entry, head.sequence + done + 1):
                    await self._check_end(Head(head.sequence + done, head.term_sequence))
                    return done
        except BrokerUnavailableError:
            return 0
        return len(entries)

    async def _holds(self, entry: Entry, sequence: int) -> bool:
        """Whether `entry` is stored there; False where nothing is. Raises FencedError for any other record."""
        found = await self._record(sequence)
        if found is None:
            return False
        if (found.subject, found.data) != (entry.subject, entry.data):
            raise FencedError(f"another coordinator wrote record {sequence}; this one stops leading")
        return True

    async def _check_end(self, expected: Head) -> None:
        """Raises LogCorruptError when the log ends before `expected`, FencedError when its last term is another."""
        end = await self.head()
        if end.sequence < expected.sequence:
            raise LogCorruptError(
                f"the log ends at {end.sequence}, before record {expected.sequence} that was read from it",
                position=end.sequence + 1,
            )
        if end.sequence == expected.sequence and end.term_sequence != expected.term_sequence:
            raise FencedError(f"the last term began at record {end.term_sequence}; this coordinator stops leading")

    # -- head ---------------------------------------------------------------------

    async def _last_term(self, up_to: int | None = None) -> int:
        """Position of the last record under TERM_SUBJECT, in segments that begin no later than `up_to`; 0 for none."""
        for segment in reversed(self._segments.all):
            if up_to is None or segment.first <= up_to:
                found = await self._found(segment.stream, {"last_by_subj": TERM_SUBJECT})
                if found:
                    return found
        return 0

    async def _found(self, stream: str, selection: dict[str, object]) -> int:
        """Position of the record that JetStream selects, as the stream's leader has it; 0 where there is none."""
        try:
            answer = await api.call(self._link, f"STREAM.MSG.GET.{stream}", selection)
        except api.ApiError as error:
            if error.code == api.NO_MESSAGE:
                return 0
            raise BrokerUnavailableError(f"the log cannot be searched: {error}; check the server") from error
        return int(answer["message"]["seq"])

    async def _ask(self, name: str) -> dict[str, Any]:
        try:
            return await api.call(self._link, name)
        except api.ApiError as error:
            raise BrokerUnavailableError(f"the log's end cannot be read: {error}; check the server") from error


def _place(segment: Segment | None) -> tuple[int, bool] | None:
    """What tells whether reading again is of use: that a segment grew is not."""
    return (segment.number, segment.sealed) if segment else None


def _fenced(entries: Sequence[Entry], head: Head) -> list[Outgoing]:
    """The messages of a batch: each fenced by the term, the first tied to the end of the log."""
    fence = _fence(head)
    first = b"Nats-Expected-Last-Sequence: %d\r\n" % head.sequence + fence
    return [Outgoing(entry.subject, entry.data, fence if at else first) for at, entry in enumerate(entries)]


def _linked(entries: Sequence[Entry], head: Head, name: bytes) -> list[Outgoing]:
    """The messages of a chain: each fenced by the term and tied to the one before.

    The position alone would not do: where the first are refused as stale, a later one may expect
    just the position at which the log ends.
    """
    fence = _fence(head)
    template = b"Nats-Expected-Last-Sequence: %d\r\nNats-Msg-Id: %b.%d\r\n%b%b"
    link = b"Nats-Expected-Last-Msg-Id: %b.%d\r\n"
    return [
        Outgoing(
            entry.subject,
            entry.data,
            template % (head.sequence + at, name, at, link % (name, at - 1) if at else b"", fence),
        )
        for at, entry in enumerate(entries)
    ]


def _fence(head: Head) -> bytes:
    return (
        f"Nats-Expected-Last-Subject-Sequence: {head.term_sequence}\r\n"
        f"Nats-Expected-Last-Subject-Sequence-Subject: {TERM_SUBJECT}\r\n"
    ).encode()


def _outcome_of(error: api.ApiError) -> _Outcome:
    outcome = _OUTCOMES.get(error.code)
    if outcome is None:
        raise LogError(f"the broker refused an append: {error}; check that the log's streams are unchanged") from error
    return outcome

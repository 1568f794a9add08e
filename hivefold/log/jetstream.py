"""The event log on a NATS JetStream stream (docs/log-format.md has the bytes)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from enum import Enum, auto
from typing import Any, Final

from hivefold.bus import api
from hivefold.bus.batch import Outgoing, store_batch
from hivefold.bus.link import Link
from hivefold.errors import (
    AppendUnresolvedError,
    BrokerUnavailableError,
    FencedError,
    LogCorruptError,
    LogError,
    LogFullError,
)
from hivefold.limits import APPEND_RETRY_MAX_MS, APPEND_RETRY_MS
from hivefold.log.entries import check_entries
from hivefold.log.port import TERM_SUBJECT, Entry, Head, Stored
from hivefold.log.reading import PageReader, leader_record
from hivefold.log.stream import STREAM, LogSettings, prepare_stream


async def open_log(link: Link, settings: LogSettings | None = None) -> JetStreamEventLog:
    """Opens the log on a connection of its own, creating the stream where there is none.

    Raises ConfigError when the server or an existing stream cannot hold a log, LogCorruptError,
    BrokerUnavailableError. The link MUST come from hivefold.bus.connection; the log closes it.
    """
    settings = settings or LogSettings()
    await prepare_stream(link, settings)
    return JetStreamEventLog(link, settings, await PageReader.open(link))


class _Outcome(Enum):
    STORED = auto()
    IN_FLIGHT = auto()
    """Refused because something else is being decided: the same may be tried again at once."""
    UNKNOWN = auto()
    """No answer, or one that an earlier try of the same entries may have caused."""
    FULL = auto()


_OUTCOMES: Final = {
    api.WRONG_LAST: _Outcome.UNKNOWN,
    10164: _Outcome.IN_FLIGHT,
    10176: _Outcome.UNKNOWN,  # the batch is incomplete: the server restarted in its middle
    10201: _Outcome.UNKNOWN,  # the batch holds a duplicate
    **dict.fromkeys(api.STORAGE_SHORT, _Outcome.FULL),
}
"""What JetStream's error codes say about an append; any other is a defect or a changed stream."""


class JetStreamEventLog:
    """EventLog over the stream HF_LOG."""

    def __init__(self, link: Link, settings: LogSettings, pages: PageReader) -> None:
        self._link = link
        self._settings = settings
        self._pages = pages
        self._appending = False

    async def head(self) -> Head:
        """The end of the log, as the stream's leader has it."""
        # In this order a record between the two answers can only make the head newer than the term.
        term_sequence = await self._term_sequence()
        info = await self._ask(f"STREAM.INFO.{STREAM}")
        return Head(int(info["state"]["last_seq"]), term_sequence)

    async def append(self, entries: Sequence[Entry], *, expected_sequence: int, term_sequence: int) -> None:
        """Stores all entries or none right after `expected_sequence`; see EventLog.append."""
        check_entries(entries)
        if self._appending:
            raise RuntimeError("one append at a time: another one is in flight")
        self._appending = True
        try:
            await self._append(entries, Head(expected_sequence, term_sequence))
        finally:
            self._appending = False

    def read(self, *, after: int, up_to: int) -> AsyncIterator[Sequence[Stored]]:
        """Yields pages of the records after `after` up to and including `up_to`; see EventLog.read."""
        return self._pages.read(after, up_to)

    async def close(self) -> None:
        """Closes the connection; pending calls fail."""
        await self._link.close()

    # -- append -------------------------------------------------------------------

    async def _append(self, entries: Sequence[Entry], head: Head) -> None:
        """Tries the same entries with the same fence until their fate is known.

        Trying again is safe at any time: as long as the expectation is never refreshed, at most one
        try can be stored, and any later one is refused and then found stored.
        """
        if not self._link.is_connected:
            raise BrokerUnavailableError("the NATS connection is down; wait for the reconnect")
        give_up_at = asyncio.get_running_loop().time() + self._settings.resolve_timeout_s
        wait_ms = APPEND_RETRY_MS
        while True:
            outcome = await self._try(entries, head)
            if outcome is _Outcome.STORED:
                return
            if outcome is not _Outcome.IN_FLIGHT and await self._look_back(entries, head):
                return
            if outcome is _Outcome.FULL:
                raise LogFullError("the log is full: raise log_max_bytes, or free the disk of the NATS server")
            if asyncio.get_running_loop().time() >= give_up_at:
                raise AppendUnresolvedError(
                    f"the append after record {head.sequence} was not answered within "
                    f"{self._settings.resolve_timeout_s:g} s; restart, the log will tell"
                )
            await asyncio.sleep(wait_ms / 1000)
            wait_ms = min(APPEND_RETRY_MAX_MS, wait_ms * 2)

    async def _try(self, entries: Sequence[Entry], head: Head) -> _Outcome:
        try:
            stored = await store_batch(self._link, _fenced(entries, head), timeout_s=self._settings.append_timeout_s)
        except BrokerUnavailableError:
            return _Outcome.UNKNOWN
        except api.ApiError as error:
            return _outcome_of(error)
        want = head.sequence + len(entries)
        if stored != want:
            raise LogCorruptError(f"the broker stored record {want} at {stored}", position=head.sequence + 1)
        return _Outcome.STORED

    async def _look_back(self, entries: Sequence[Entry], head: Head) -> bool:
        """Whether the entries are stored after `head`; False when nothing is and the fence still holds.

        Raises FencedError when another writer's records are there, LogCorruptError when the log ends
        before `head`. A silent broker counts as False: the next try settles it.
        """
        try:
            found = await leader_record(self._link, head.sequence + 1)
            if found is None:
                now = await self.head()
            elif await self._is_ours(found, entries, head):
                return True
            else:
                raise FencedError(f"another coordinator wrote record {found.sequence}; this one stops leading")
        except BrokerUnavailableError:
            return False
        if now.sequence < head.sequence:
            raise LogCorruptError(
                f"the log ends at {now.sequence}, before record {head.sequence} that was read from it",
                position=now.sequence + 1,
            )
        if now.sequence == head.sequence and now.term_sequence != head.term_sequence:
            raise FencedError(f"the last term began at record {now.term_sequence}; this coordinator stops leading")
        return False

    async def _is_ours(self, found: Stored, entries: Sequence[Entry], head: Head) -> bool:
        """Whether the record after `head` and the last of the batch are the ones to append."""
        if Entry(found.subject, found.data) != entries[0]:
            return False
        last = await leader_record(self._link, head.sequence + len(entries))
        return last is not None and Entry(last.subject, last.data) == entries[-1]

    # -- head ---------------------------------------------------------------------

    async def _term_sequence(self) -> int:
        try:
            answer = await api.call(self._link, f"STREAM.MSG.GET.{STREAM}", {"last_by_subj": TERM_SUBJECT})
        except api.ApiError as error:
            if error.code == api.NO_MESSAGE:
                return 0
            raise BrokerUnavailableError(f"the log's last term cannot be read: {error}; check the server") from error
        return int(answer["message"]["seq"])

    async def _ask(self, name: str) -> dict[str, Any]:
        try:
            return await api.call(self._link, name)
        except api.ApiError as error:
            raise BrokerUnavailableError(f"the log's end cannot be read: {error}; check the server") from error


def _fenced(entries: Sequence[Entry], head: Head) -> list[Outgoing]:
    """The messages of an append: each fenced by the term, the first tied to the end of the log."""
    fence = (
        f"Nats-Expected-Last-Subject-Sequence: {head.term_sequence}\r\n"
        f"Nats-Expected-Last-Subject-Sequence-Subject: {TERM_SUBJECT}\r\n"
    ).encode()
    first = b"Nats-Expected-Last-Sequence: %d\r\n" % head.sequence + fence
    return [Outgoing(entry.subject, entry.data, fence if at else first) for at, entry in enumerate(entries)]


def _outcome_of(error: api.ApiError) -> _Outcome:
    outcome = _OUTCOMES.get(error.code)
    if outcome is None:
        raise LogError(f"the broker refused an append: {error}; check that stream {STREAM} is unchanged") from error
    return outcome

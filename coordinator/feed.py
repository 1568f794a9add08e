"""Publishes what happens to jobs and nodes for subscribers in any language: events.job.<id>, events.node.<id>.

At least once: after a restart the feed goes on from the last event that the stream holds. It follows the
writer and never holds it up: a feed that falls behind reads the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import NamedTuple

import structlog

from coordinator.core.model import State
from coordinator.derive import FINAL_TYPES, Decided, Folded, Scope, job_events, job_ids, node_events
from coordinator.watch import follow
from coordinator.wire.records import decode_record, job_subject
from coordinator.writer import Writer
from hivefold import limits
from hivefold.bus.port import EventSender, Message, Signals
from hivefold.ids import JobId
from hivefold.log.port import EventLog

_log = structlog.get_logger(__name__)


class _Item(NamedTuple):
    """A derived event on its way: its subject, bytes, record, and where else it is wanted."""

    subject: str
    data: bytes
    sequence: int
    response_subject: str = ""


class Feed:
    """The public event stream of one term."""

    def __init__(self, writer: Writer, log: EventLog, sender: EventSender, signals: Signals) -> None:
        self._writer = writer
        self._log = log
        self._sender = sender
        self._signals = signals
        self._queue: asyncio.Queue[Decided] = asyncio.Queue(limits.FEED_QUEUE)

    async def run(self) -> None:
        """Derives and publishes until it is cancelled. Raises NotLeaderError when the writer stops."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._publish())

    async def _follow(self) -> None:
        state = self._writer.state
        last = min(await self._sender.last_sequence(), state.sequence)
        # Of the last record the stream may hold a part: it is published again.
        position = last - 1 if last else await self._oldest_wanted()
        start, scope = await _start(self._log, state, position)
        _log.info("feed starts", after=position, head=state.sequence)
        async with aclosing(follow(self._writer, self._log, start, scope, position)) as decided:
            async for record in decided:
                await self._queue.put(record)

    async def _publish(self) -> None:
        while True:
            batch = await self._derived(await self._queue.get())
            # Responses go out before the events are stored: a crash between the two repeats them.
            heard = self._signals.connected
            if heard:
                await self._respond(batch)
            await self._sender.send([(item.subject, item.data, item.sequence) for item in batch])
            if not heard:
                await self._respond(batch)
            # What comes meanwhile goes out together: storing a batch costs the broker the same whatever its size,
            # and who waits for a job is answered before events are derived for others.
            await asyncio.sleep(limits.FEED_INTERVAL_MS / 1000)

    async def _derived(self, first: Decided) -> list[_Item]:
        """The events of a record and of those that wait behind it, as many as go out together."""
        batch = _items(first)
        while len(batch) < limits.EVENTS_BATCH and not self._queue.empty():
            await asyncio.sleep(0)
            batch += _items(self._queue.get_nowait())
        return batch

    async def _respond(self, batch: Sequence[_Item]) -> None:
        for item in batch:
            if item.response_subject:
                self._signals.publish(Message(item.response_subject, item.data))

    async def _oldest_wanted(self) -> int:
        """Position before the oldest record that an empty stream would still hold, found by bisection."""
        state = self._writer.state
        oldest_us = state.time_us - limits.FEED_MAX_AGE_S * 1_000_000
        low, high = 0, state.sequence
        while low < high:
            middle = (low + high) // 2
            if await self._time_us(middle + 1) < oldest_us:
                low = middle + 1
            else:
                high = middle
        return low

    async def _time_us(self, sequence: int) -> int:
        pages = [page async for page in self._log.read(after=sequence - 1, up_to=sequence)]
        return decode_record(pages[0][0]).time_us


async def _start(log: EventLog, state: State, position: int) -> tuple[Folded, Scope]:
    """Where to begin folding so that every job that changed after `position` is known from its first record."""
    changed = {job_id: job.create_sequence for job_id, job in state.jobs.items() if job.sequence > position}
    if position < state.retired_sequence:
        changed |= await _retired(log, state, position)
    first = min((sequence - 1 for sequence in changed.values()), default=position)
    partial = State(models=state.models, removed=state.removed, nodes=state.nodes)
    return Folded(min(first, position), 0, (), partial), Scope(frozenset(changed), nodes=True)


async def _retired(log: EventLog, state: State, position: int) -> dict[JobId, int]:
    """Jobs that changed after `position` and are gone from the state since, with where they were submitted."""
    found: dict[JobId, int] = {}
    async for page in log.read(after=position, up_to=state.retired_sequence):
        for stored in page:
            for job_id in job_ids(decode_record(stored).events):
                if job_id not in found and job_id not in state.jobs:
                    found[job_id] = await log.find_first(job_subject(job_id))
        await asyncio.sleep(0)
    return found


def _items(record: Decided) -> list[_Item]:
    items = []
    for event in job_events(record):
        response_subject = event.job.spec.response_subject if event.type in FINAL_TYPES else ""
        subject = f"events.job.{event.job.job_id}"
        items.append(_Item(subject, event.SerializeToString(), record.sequence, response_subject))
    for node_event in node_events(record):
        subject = f"events.node.{node_event.node.spec.node_id}"
        items.append(_Item(subject, node_event.SerializeToString(), record.sequence))
    return items

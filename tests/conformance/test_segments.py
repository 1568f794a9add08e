"""A log of several segments reads and fences as one: the same for the fake and for a real nats-server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from hivefold.bus import api
from hivefold.bus.connection import connect
from hivefold.bus.link import Link
from hivefold.errors import FencedError, LogCorruptError, SegmentMissingError
from hivefold.log.jetstream import JetStreamEventLog, open_log
from hivefold.log.naming import STREAM, stream_name
from hivefold.log.port import CLOSE_SUBJECT, TERM_SUBJECT, Entry, EventLog, Head
from hivefold.log.stream import LogSettings, sealed_stream, wanted_stream
from hivefold.server.embedded import RunningServer
from tests.conformance.test_event_log import Store, append, begin_term, entries, everything, jetstream, memory, store

__all__ = ["jetstream", "memory", "store"]
pytestmark = pytest.mark.integration

CLOSE = [Entry(CLOSE_SUBJECT, b"close")]


async def reopened(log: EventLog, head: Head, tag: str) -> Head:
    """Closes the segment and opens the next, as a leader does."""
    head = await append(log, [Entry(CLOSE_SUBJECT, f"close {tag}".encode())], head)
    await append(log, [Entry(TERM_SUBJECT, f"open {tag}".encode())], head)
    return Head(head.sequence + 1, head.sequence + 1)


async def of_segments(log: EventLog, count: int, records: int) -> Head:
    """A log of so many segments, with so many records in each besides those that begin and end it."""
    head = await begin_term(log)
    for number in range(count):
        if number:
            head = await reopened(log, head, str(number))
        head = await append(log, entries(records, str(number)), head)
    return head


async def test_segments_read_as_one_log(store: Store) -> None:
    """Any range, within a segment and across them, has its records in order; head and first finds go on."""
    log = await store.open()
    head = await of_segments(log, 4, 10)

    assert await log.head() == head
    assert [record.sequence for record in await everything(await store.open())] == list(range(1, head.sequence + 1))
    for after, up_to in ((0, 1), (10, 13), (5, 40), (11, 12), (24, head.sequence)):
        read = [record.sequence async for page in log.read(after=after, up_to=up_to) for record in page]
        assert read == list(range(after + 1, up_to + 1))
    assert await log.find_first("log.job.j1") == 3
    assert log.open_segment.number == (await store.open()).open_segment.number == 4


async def test_another_handle_follows_over_the_roll(store: Store) -> None:
    """A standby that opened the log before sees the new segment's records and where the log ends."""
    leader, standby = await store.open(), await store.open()
    head = await of_segments(leader, 3, 5)

    assert await standby.head() == head
    assert len(await everything(standby)) == head.sequence


async def test_reading_past_the_end_of_a_closed_log_says_where_it_ends(store: Store) -> None:
    """Whether or not the next segment is there, the first missing position is named."""
    log = await store.open()
    head = await append(log, CLOSE, await append(log, entries(2), await begin_term(log)))

    with pytest.raises(LogCorruptError) as caught:
        _ = [page async for page in log.read(after=0, up_to=head.sequence + 3)]

    assert caught.value.position == head.sequence + 1


async def test_only_a_term_record_follows_a_closed_segment(store: Store) -> None:
    """Whoever appends, the one that closed it or another, and only as the last of an append may a record close."""
    log = await store.open()
    head = await append(log, CLOSE, await begin_term(log))

    for handle in (log, await store.open()):
        with pytest.raises(ValueError, match="closed"):
            await append(handle, entries(1), head)
    with pytest.raises(ValueError, match="last of its append"):
        await append(log, [*CLOSE, *entries(1)], head)
    assert await log.head() == head


async def test_a_deposed_leader_is_refused_in_the_next_segment(store: Store) -> None:
    """With the term it had, at any position, before and after the next segment's first record."""
    old, new = await store.open(), await store.open()
    old_head = await append(old, entries(2), await begin_term(old))
    new_head = await append(new, CLOSE, await begin_term(new, b"newer"))
    for later in (False, True):
        if later:
            new_head = await begin_term(new, b"newest")
        for position in range(old_head.sequence, new_head.sequence + later):
            with pytest.raises(FencedError):
                await append(old, [Entry(TERM_SUBJECT, b"late")], Head(position, old_head.term_sequence))
        with pytest.raises(FencedError):
            await append(old, entries(2, "late"), old_head)

    assert await new.head() == new_head


async def test_of_two_that_open_the_next_segment_one_does(store: Store) -> None:
    """The leader that closed it and a candidate that saw it closed: one record is first."""
    first, second = await store.open(), await store.open()
    head = await append(first, CLOSE, await begin_term(first))

    async def opens(log: EventLog, data: bytes) -> bool:
        try:
            await append(log, [Entry(TERM_SUBJECT, data)], head)
        except FencedError:
            return False
        return True

    won = await asyncio.gather(opens(first, b"one"), opens(second, b"two"))

    assert sorted(won) == [False, True]
    assert await first.head() == await second.head() == Head(head.sequence + 1, head.sequence + 1)


async def test_opening_again_what_is_open_stores_once(store: Store) -> None:
    """The very same opening twice, as after an answer that was lost."""
    log = await store.open()
    head = await append(log, CLOSE, await begin_term(log))
    for handle in (log, log, await store.open()):
        await append(handle, [Entry(TERM_SUBJECT, b"open")], head)

    assert (await log.head()).sequence == head.sequence + 1


# -- what only a broker can do ----------------------------------------------------------


async def seal(link: Link) -> None:
    info = await api.call(link, f"STREAM.INFO.{STREAM}")
    await api.call(link, f"STREAM.UPDATE.{STREAM}", sealed_stream(info["config"]))


async def make_next(link: Link, first: int) -> None:
    wanted = wanted_stream(LogSettings(), number=2, first=first)
    await api.call(link, f"STREAM.CREATE.{wanted['name']}", wanted)


@pytest.mark.parametrize("stage", ["closed", "sealed", "made"])
async def test_a_roll_that_was_cut_off_is_finished_by_the_next_leader(nats_server: RunningServer, stage: str) -> None:
    """At each point where a leader can die; the old leader, alive again, is fenced and harms nothing."""
    old = await open_log(await connect(nats_server.core))
    head = await append(old, CLOSE, await append(old, entries(3), await begin_term(old)))
    if stage != "closed":
        await seal(old._link)
    if stage == "made":
        await make_next(old._link, head.sequence + 1)

    new = await open_log(await connect(nats_server.core))
    assert await new.head() == head
    new_head = await append(new, entries(2, "new"), await begin_term(new, b"new leader"))

    with pytest.raises(FencedError):
        await append(old, [Entry(TERM_SUBJECT, b"open")], head)
    assert await old.head() == new_head
    assert [segment.sealed for segment in new.segments] == [True, False]
    assert len(await everything(await open_log(await connect(nats_server.core)))) == new_head.sequence
    await old.close()
    await new.close()


async def test_a_segment_made_too_late_blocks_nobody(nats_server: RunningServer) -> None:
    """A leader that slept through two rolls makes one that was there and is gone: the next roll clears it away."""
    log = await open_log(await connect(nats_server.core))
    head = await of_segments(log, 3, 2)
    second = log.segments[1]
    await api.call(log._link, f"STREAM.DELETE.{second.stream}")
    head = await append(log, CLOSE, head)
    info = await api.call(log._link, f"STREAM.INFO.{stream_name(3)}")
    await api.call(log._link, f"STREAM.UPDATE.{stream_name(3)}", sealed_stream(info["config"]))
    await make_next(log._link, second.first)

    head = await append(log, entries(1), await begin_term(log, b"after the stray"))

    assert await log.head() == head
    assert [segment.number for segment in log.segments] == [1, 3, 4]
    await log.close()


async def test_a_full_segment_says_so_while_there_is_room_for_another(nats_server: RunningServer) -> None:
    """By records and by bytes; without room for a next one it goes on to the limit of the log."""
    for settings, full in (
        (LogSettings(segment_max_records=5), True),
        (LogSettings(segment_max_bytes=500), True),
        (LogSettings(segment_max_records=5, max_bytes=100_000), False),
        (LogSettings(), False),
    ):
        log = await open_log(await connect(nats_server.core), settings)
        if not (await log.head()).sequence:
            await append(log, entries(5), await begin_term(log))
        assert (log.open_segment.number, log.open_segment.full) == (1, full)
        await log.close()


async def test_a_part_that_is_nowhere_is_named(nats_server: RunningServer, tmp_path: Path) -> None:
    """Not on the broker, in no archive: the position, and what to do; the rest reads on."""
    settings = LogSettings(archive=tmp_path)
    log = await open_log(await connect(nats_server.core), settings)
    head = await of_segments(log, 3, 4)
    second = log.segments[1]
    await api.call(log._link, f"STREAM.DELETE.{second.stream}")
    fresh: JetStreamEventLog = await open_log(await connect(nats_server.core), settings)
    for handle in (log, fresh):
        seen: list[int] = []
        with pytest.raises(SegmentMissingError, match="neither on the broker") as caught:
            await collect(handle, seen, head.sequence)
        assert caught.value.position == second.first == seen[-1] + 1
        assert len([r async for p in handle.read(after=second.last, up_to=head.sequence) for r in p]) == 5
    await log.close()
    await fresh.close()


async def collect(log: JetStreamEventLog, seen: list[int], up_to: int) -> Any:
    async for page in log.read(after=0, up_to=up_to):
        seen += [record.sequence for record in page]

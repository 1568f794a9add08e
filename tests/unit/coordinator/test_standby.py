"""A standby follows what the leader writes, answers from it, and takes over where it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from coordinator.artifacts import Artifacts
from coordinator.core.commands import SubmitJob
from coordinator.core.model import JobSpec, ProbeSpec
from coordinator.erasing import Eraser
from coordinator.replay import NOTHING
from coordinator.servicers import Backing
from coordinator.servicers.backing import Nobody
from coordinator.standby import Standby
from coordinator.writer import Writer
from hivefold import limits
from hivefold.blobs.keys import MemoryKeys
from hivefold.blobs.memory import MemoryChunks
from hivefold.bus.memory import MemoryBroker
from hivefold.clock import ManualClock
from hivefold.entropy import SeededEntropy
from hivefold.errors import LogCorruptError, NotFoundError, NotLeaderError, UnavailableError
from hivefold.ids import JobId, RequestId
from hivefold.log.memory import MemoryEventLog
from tests.fixtures.keys import memory_job_keys
from tests.unit.coordinator.fleet import until


@asynccontextmanager
async def following(log: MemoryEventLog) -> AsyncIterator[Standby]:
    """A standby over a connection of its own."""
    standby = Standby(MemoryEventLog(log.store), ManualClock(), NOTHING)
    task = asyncio.create_task(standby.run())
    try:
        yield standby
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def leading(log: MemoryEventLog) -> AsyncIterator[Writer]:
    """A leader's writer in its first term."""
    writer = Writer(log, ManualClock(), SeededEntropy(1), NOTHING)
    await writer.begin("ann", "0")
    task = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def submit(writer: Writer, number: int) -> None:
    await writer.execute(SubmitJob(JobId(f"j-{number}"), RequestId(f"r-{number}"), JobSpec(ProbeSpec(1))))


async def test_a_standby_has_the_leaders_state(log: MemoryEventLog) -> None:
    """State and chain hash are equal, record by record behind a nudge."""
    async with leading(log) as writer, following(log) as standby:
        for number in range(5):
            await submit(writer, number)
            standby.nudge()
            await standby.reach(writer.state.sequence)

            assert standby.state == writer.state
            assert standby.head_hash == writer.head_hash


def reading(log: MemoryEventLog, standby: Standby) -> Backing:
    """What services answer from while this coordinator follows."""
    connection = MemoryBroker().connect()
    backing = Backing(
        log,
        connection.result_receiver(),
        memory_job_keys(),
        ManualClock(),
        SeededEntropy(2),
        connection.checkpoints(),
        leader=lambda: "10.0.0.7:7400",
    )
    backing.follow(standby)
    return backing


async def test_a_standby_never_denies_a_job_that_was_acknowledged(log: MemoryEventLog) -> None:
    """Nobody has told it that there is more in the log: it looks before it says that there is no such job."""
    async with leading(log) as writer, following(log) as standby:
        await until(lambda: standby.state.sequence == writer.state.sequence)
        await submit(writer, 1)
        assert JobId("j-1") not in standby.state.jobs

        assert (await reading(log, standby).job(JobId("j-1"))).job_id == "j-1"


@dataclass(frozen=True, slots=True)
class Term:
    """A term as services see it; nobody is heard, and nothing is signed."""

    writer: Writer
    presence: Nobody = field(default_factory=Nobody)
    checkpoints: None = None

    @property
    def artifacts(self) -> Artifacts:
        """Nobody removes a model here."""
        return Artifacts(self.writer, MemoryChunks())

    @property
    def eraser(self) -> Eraser:
        """Nobody erases a job here."""
        return Eraser(self.writer, MemoryKeys(SeededEntropy(1)), MemoryBroker().connect().result_receiver())


async def test_a_leader_whose_lease_lapsed_denies_nothing(log: MemoryEventLog) -> None:
    """Another may lead by then, and have acknowledged what this one has never seen; what it knows it shows."""
    holds = True
    writer = Writer(log, ManualClock(), SeededEntropy(1), NOTHING, may_act=lambda: holds)
    await writer.begin("ann", "0")
    await writer.record(SubmitJob(JobId("j-1"), RequestId("r-1"), JobSpec(ProbeSpec(1))))
    backing = reading(log, Standby(log, ManualClock(), NOTHING))
    backing.lead(Term(writer))
    with pytest.raises(NotFoundError):
        await backing.job(JobId("j-2"))
    holds = False

    with pytest.raises(NotLeaderError):
        await backing.job(JobId("j-2"))
    assert (await backing.job(JobId("j-1"))).job_id == "j-1"


async def test_a_leader_that_stood_still_does_not_call_made_up_what_its_successor_wrote(log: MemoryEventLog) -> None:
    """As after SIGSTOP and SIGCONT: a position that the log has, and it has not, is another leader's."""
    writer = Writer(log, ManualClock(), SeededEntropy(1), NOTHING)
    await writer.begin("ann", "0")
    backing = reading(log, Standby(log, ManualClock(), NOTHING))
    backing.lead(Term(writer))
    async with leading(log) as successor:
        await submit(successor, 1)
        theirs = successor.state.sequence

    with pytest.raises(NotLeaderError):
        await backing.source_at(theirs)
    assert await backing.source_at(theirs + 1) is writer, "nobody wrote that one: the caller made it up"
    assert await backing.source_at(1) is writer


async def test_a_standby_that_lost_sight_of_the_log_shows_no_state(log: MemoryEventLog) -> None:
    """As after SIGSTOP and SIGCONT: it names the leader instead, until it has caught up."""
    clock = ManualClock()
    standby = Standby(log, clock, NOTHING)
    backing = reading(log, standby)
    clock.advance_ms(limits.STANDBY_STALE_MS + 1)

    with pytest.raises(NotLeaderError) as refused:
        _ = backing.state
    assert refused.value.metadata["leader"] == "10.0.0.7:7400"
    await standby.catch_up()
    assert backing.state == standby.state


async def test_it_follows_without_hints_too(log: MemoryEventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hints only make it quicker."""
    monkeypatch.setattr(limits, "STANDBY_POLL_S", 0.001)
    async with leading(log) as writer, following(log) as standby:
        await submit(writer, 1)
        await until(lambda: standby.state == writer.state)


async def test_those_who_follow_a_standby_miss_nothing(log: MemoryEventLog) -> None:
    """Every record is handed on once, in order; the last ones also to who comes a little late."""
    async with leading(log) as writer, following(log) as standby:
        follower = standby.follow()
        for number in range(4):
            await submit(writer, number)
        await standby.reach(writer.state.sequence)
        seen = [(await anext(follower)).sequence for _ in range(writer.state.sequence)]
        late = standby.follow_after(3)
        assert late is not None
        missed = [(await anext(late)).sequence for _ in range(writer.state.sequence - 3)]

    assert seen == list(range(1, writer.state.sequence + 1))
    assert missed == seen[3:]


async def test_the_end_of_a_standby_is_the_end_of_its_followers(log: MemoryEventLog) -> None:
    """Who waits there, or comes later, is told instead of left waiting."""
    async with following(log) as standby:
        waiting = asyncio.ensure_future(anext(standby.follow()))
        await asyncio.sleep(0)
    for follower in (waiting, anext(standby.follow())):
        with pytest.raises(UnavailableError):
            await asyncio.wait_for(follower, 5)

    assert standby.ended


async def test_a_corrupt_log_stops_it_with_the_position(log: MemoryEventLog) -> None:
    """An altered record is named; nothing behind it is followed."""
    async with leading(log) as writer:
        for number in range(3):
            await submit(writer, number)
    altered = log.store[2]
    log.store[2] = replace(altered, data=altered.data[:-1] + bytes([altered.data[-1] ^ 1]))
    standby = Standby(log, ManualClock(), NOTHING)
    with pytest.raises(LogCorruptError) as stopped:
        await asyncio.wait_for(standby.run(), 5)

    assert stopped.value.position in {3, 4}
    assert standby.state.sequence < stopped.value.position


async def test_a_position_that_it_lags_behind_is_waited_for(
    log: MemoryEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that asks for a record waits for it, not for ever; a position behind the log's end is not waited for."""
    monkeypatch.setattr(limits, "STANDBY_REACH_S", 0.02)
    async with leading(log) as writer:
        await submit(writer, 1)
    idle = Standby(MemoryEventLog(log.store), ManualClock(), NOTHING)
    with pytest.raises(UnavailableError, match="has not reached"):
        await idle.reach(2)
    await idle.reach(1000)


async def test_a_position_far_ahead_is_waited_for_too(log: MemoryEventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further than its followers may lag: what was asked for is there when the wait ends."""
    monkeypatch.setattr(limits, "FOLLOWER_QUEUE", 4)
    monkeypatch.setattr("hivefold.log.memory.READ_PAGE_RECORDS", 6)
    async with leading(log) as writer:
        for number in range(40):
            await submit(writer, number)
        async with following(log) as standby:
            await standby.reach(writer.state.sequence)

            assert standby.state == writer.state


async def test_its_lag_can_be_seen(log: MemoryEventLog) -> None:
    """How far the log's end is, and for how long that has not been asked."""
    async with leading(log) as writer:
        await submit(writer, 1)
        clock = ManualClock()
        standby = Standby(MemoryEventLog(log.store), clock, NOTHING)
        clock.advance_ms(1500)
        assert (standby.end_sequence, standby.stale_ms) == (0, 1500)
        await standby.catch_up()
        assert (standby.end_sequence, standby.stale_ms) == (writer.state.sequence, 0)


async def test_a_writer_that_handed_over_records_nothing_more(log: MemoryEventLog) -> None:
    """What waited is recorded first, then the end of the term; what comes later is refused."""
    async with leading(log) as writer:
        waiting = [asyncio.create_task(submit(writer, number)) for number in range(3)]
        await asyncio.sleep(0)
        await writer.end_term("told to stop")
        await asyncio.gather(*waiting)
        with pytest.raises(NotLeaderError):
            await submit(writer, 9)
        assert writer.ended

    assert [record.subject for record in log.store][-1] == "log.term.end"
    assert len(writer.state.jobs) == 3


async def test_a_writer_without_a_valid_lease_records_nothing(log: MemoryEventLog) -> None:
    """The command is refused as unavailable, nothing reaches the log; with the lease back it is taken."""
    valid = [True]
    writer = Writer(log, ManualClock(), SeededEntropy(1), NOTHING, lambda: valid[0])
    await writer.begin("ann", "0")
    task = asyncio.create_task(writer.run())
    valid[0] = False
    with pytest.raises(UnavailableError, match="lease"):
        await submit(writer, 1)
    assert len(log.store) == 1
    assert not writer.leading
    valid[0] = True
    await submit(writer, 1)
    assert len(log.store) == 2
    task.cancel()

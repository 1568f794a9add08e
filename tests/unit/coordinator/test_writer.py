"""The writer: append before evolve, evolve before answer and act; a refused batch leaves no trace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from coordinator.batch import Accepted
from coordinator.core import commands as cmd
from coordinator.core import decide_placement
from coordinator.core import events as ev
from coordinator.core.model import Failure, Job, JobSpec, NodeSpec, ProbeSpec, Rejected, State
from coordinator.core.place import Ranking, rank
from coordinator.followers import Committed, FollowerLaggedError
from coordinator.replay import Replayed, replay
from coordinator.wire.records import GENESIS_HASH, decode_record
from coordinator.writer import Writer
from hivefold import limits
from hivefold.clock import ManualClock
from hivefold.entropy import SeededEntropy
from hivefold.errors import LogFullError, NotLeaderError, Reason
from hivefold.ids import BootId, JobId, NodeId, RequestId
from hivefold.log.memory import Fault, MemoryEventLog


def submit(number: int, tasks: int = 1) -> cmd.SubmitJob:
    return cmd.SubmitJob(JobId(f"j-{number}"), RequestId(f"r-{number}"), JobSpec(ProbeSpec(tasks)))


def join(name: str, slots: int = 1) -> cmd.JoinNode:
    return cmd.JoinNode(NodeSpec(NodeId(name), BootId("b1"), slots))


@asynccontextmanager
async def leading(log: MemoryEventLog, clock: ManualClock | None = None) -> AsyncIterator[Writer]:
    """A writer that leads on a log."""
    head = await log.head()
    start = await replay(log, up_to=head.sequence) if head.sequence else Replayed(State(), GENESIS_HASH)
    writer = Writer(log, clock or ManualClock(), SeededEntropy(1), start)
    await writer.begin("test", "0")
    running = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_an_accepted_command_is_in_the_log_before_its_answer() -> None:
    """Append, then answer."""
    log = MemoryEventLog()
    async with leading(log) as writer:
        answer = await writer.execute(submit(1))

        assert isinstance(answer, Accepted)
        stored = decode_record(log.store[answer.sequence - 1])
        assert stored.events == answer.events
        assert stored.command.body == submit(1)


async def test_nothing_acts_before_the_record_is_durable() -> None:
    """Append, then act: an act sees the record already stored."""
    log = MemoryEventLog()
    seen: list[bool] = []

    def act(commits: Sequence[Committed]) -> None:
        seen.extend(len(log.store) >= committed.sequence for committed in commits)

    async with leading(log) as writer:
        writer.on_commit(act)
        await writer.execute(submit(1))

        assert seen
        assert all(seen)


async def test_a_full_log_refuses_the_command_and_keeps_the_state() -> None:
    """A batch that fails is dropped with its tentative state."""
    log = MemoryEventLog()
    async with leading(log) as writer:
        before = writer.state
        log.inject(Fault.FULL)

        with pytest.raises(LogFullError):
            await writer.execute(submit(1))

        assert writer.state == before
        assert isinstance(await writer.execute(submit(1)), Accepted)


async def test_commands_that_wait_together_are_decided_on_each_others_tentative_state() -> None:
    """Two submits with one request_id in one batch: the second records nothing and names the same job."""
    log = MemoryEventLog()
    async with leading(log) as writer:
        again = cmd.SubmitJob(JobId("j-2"), RequestId("r-1"), JobSpec(ProbeSpec(1)))
        first, second = await asyncio.gather(writer.execute(submit(1)), writer.execute(again))

        assert isinstance(first, Accepted)
        assert isinstance(second, Accepted)
        assert second.sequence == 0
        assert list(writer.state.jobs) == [JobId("j-1")]


async def test_a_job_is_placed_in_the_record_that_accepts_it() -> None:
    """With room in the fleet, submit and placement are one decision."""
    log = MemoryEventLog()
    async with leading(log) as writer:
        await writer.execute(join("n1"))
        answer = await writer.execute(submit(1))

        assert isinstance(answer, Accepted)
        kinds = [type(event) for event in answer.events]
        assert kinds == [ev.JobSubmitted, ev.TasksPlanned, ev.TasksAssigned]


async def test_a_deposed_writer_stops_and_says_so() -> None:
    """Fenced by the broker: the command fails, and so does every later one."""
    log = MemoryEventLog()
    async with leading(log) as writer:
        log.inject(Fault.DEPOSED)

        with pytest.raises(NotLeaderError):
            await writer.execute(submit(1))
        with pytest.raises(NotLeaderError):
            await writer.execute(submit(2))
        assert not writer.leading


async def test_who_waits_for_an_append_is_told_when_the_writer_is_stopped_in_its_middle() -> None:
    """As when the lease is lost while the log is silent: the caller goes to the next leader and waits no longer."""
    log = MemoryEventLog()
    async with leading(log) as writer:
        log.hold()
        asked = asyncio.create_task(writer.execute(submit(1)))
        for _ in range(20):
            await asyncio.sleep(0)

    with pytest.raises(NotLeaderError):
        await asyncio.wait_for(asked, 5)


async def test_an_append_of_unknown_outcome_stops_the_writer_and_the_next_one_finds_the_truth() -> None:
    """Uncertain stays uncertain until a replay: the record is there, and the next term knows it."""
    log = MemoryEventLog()
    async with leading(log) as writer:
        log.inject(Fault.LOST_ACK)
        with pytest.raises(NotLeaderError):
            await writer.execute(submit(1))

    async with leading(log) as successor:
        assert JobId("j-1") in successor.state.jobs
        assert successor.state.term == 2


async def test_the_replayed_state_is_the_live_state() -> None:
    """Live == replayed, at the head."""
    log = MemoryEventLog()
    async with leading(log) as writer:
        await writer.execute(join("n1"))
        await asyncio.gather(*(writer.execute(submit(n, tasks=3)) for n in range(20)))
        await writer.execute(cmd.CancelJob(JobId("j-3"), "enough"))

        replayed = await replay(log, up_to=writer.state.sequence)

        assert replayed.state == writer.state
        assert replayed.head_hash == writer.head_hash


async def test_where_nothing_can_be_placed_time_alone_ranks_no_nodes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times a second each job that waits would else be held against each node, with the answer known."""
    ranked: list[JobId] = []

    def counted(state: State, job: Job) -> Ranking:
        ranked.append(job.job_id)
        return rank(state, job)

    monkeypatch.setattr(decide_placement, "rank", counted)
    async with leading(MemoryEventLog()) as writer:
        await writer.execute(join("a"))
        await writer.execute(submit(1, tasks=10))
        await asyncio.sleep(0)
        ranked.clear()

        for _ in range(50):
            writer.tick()
            await asyncio.sleep(0)
        once = len(ranked)
        await writer.execute(join("b"))

        assert once == 0
        assert {attempt.node_id for attempt in writer.state.jobs[JobId("j-1")].running.values()} == {"a", "b"}


async def test_what_waits_for_its_time_is_tried_again_when_that_comes_although_nothing_was_recorded() -> None:
    """A vain placement is known to be vain until the next task may be tried again, no longer."""
    clock = ManualClock()
    async with leading(MemoryEventLog(), clock) as writer:
        await writer.execute(join("a"))
        await writer.execute(submit(1))
        attempt = writer.state.jobs[JobId("j-1")].running[0]
        failed = cmd.OutcomeReport(JobId("j-1"), 0, attempt.number, 1, 0, 1, Failure(Reason.RUNTIME_FAILED, "no", True))
        await writer.execute(cmd.ReportOutcomes(NodeId("a"), reports=(failed,)))
        waits_until_us = writer.state.jobs[JobId("j-1")].waiting[0]
        writer.tick()
        await asyncio.sleep(0)
        assert not writer.state.jobs[JobId("j-1")].running

        clock.advance_ms((waits_until_us - clock.now_us()) // 1000 + 1)
        writer.tick()
        while not writer.state.jobs[JobId("j-1")].running:
            await asyncio.sleep(0)

        assert writer.state.jobs[JobId("j-1")].running[0].number == attempt.number + 1


async def test_a_rejection_records_nothing() -> None:
    """Rejected changes nothing."""
    log = MemoryEventLog()
    async with leading(log) as writer:
        before = len(log.store)

        answer = await writer.execute(cmd.DrainNode(NodeId("nobody")))

        assert isinstance(answer, Rejected)
        assert len(log.store) == before


async def test_a_leader_in_doubt_asks_the_log_although_it_has_nothing_to_record() -> None:
    """Else one whose successor froze would sit on the lease while nodes believe the later term (simulation, 1965)."""
    log = MemoryEventLog()
    async with leading(log) as writer:
        writer.doubt()
        for _ in range(20):
            await asyncio.sleep(0)
        assert writer.leading

        async with leading(MemoryEventLog(log.store)):
            pass
        writer.doubt()
        async with asyncio.timeout(5):
            while not writer.ended:
                await asyncio.sleep(0)


async def test_a_follower_that_lags_is_told_instead_of_skipping() -> None:
    """No silent gap: the follower gets a prefix, then an error."""
    log = MemoryEventLog()
    async with leading(log) as writer:
        follower = writer.follow()
        for number in range(limits.FOLLOWER_QUEUE + 10):
            await writer.execute(submit(number))

        seen = [(await anext(follower)).sequence for _ in range(limits.FOLLOWER_QUEUE)]
        with pytest.raises(FollowerLaggedError):
            await anext(follower)

        assert seen == list(range(seen[0], seen[0] + limits.FOLLOWER_QUEUE))


async def test_a_late_follower_gets_what_it_missed_or_is_sent_to_the_log() -> None:
    """From a recent position on nothing is missing; a position that is too old is refused."""
    log = MemoryEventLog()
    async with leading(log) as writer:
        for number in range(limits.RECENT_COMMITS):
            await writer.execute(submit(number))
        head = writer.state.sequence

        late = writer.follow_after(head - 2)
        assert late is not None
        await writer.execute(submit(limits.RECENT_COMMITS))

        assert [(await anext(late)).sequence for _ in range(3)] == [head - 1, head, head + 1]
        assert writer.follow_after(0) is None


async def test_recorded_time_never_goes_back() -> None:
    """A clock that jumps back does not reorder the log's times."""
    log = MemoryEventLog()
    clock = ManualClock()
    writer = Writer(log, clock, SeededEntropy(1), Replayed(State(), GENESIS_HASH))
    await writer.begin("test", "0")
    running = asyncio.create_task(writer.run())
    await writer.execute(submit(1))
    clock.advance_ms(-3_600_000)
    await writer.execute(submit(2))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    times = [decode_record(stored).time_us for stored in log.store]
    assert times == sorted(times)


async def test_a_deposed_leader_answers_nothing_from_its_old_state() -> None:
    """To record nothing, too, takes the latest state: the outcome or cancel may concern what a successor recorded."""
    log = MemoryEventLog()
    async with leading(log) as old, leading(MemoryEventLog(log.store)) as new:
        await new.execute(submit(1))

        with pytest.raises(NotLeaderError):
            await old.execute(cmd.CancelJob(JobId("j-1")))
        assert not old.leading


async def test_recorded_time_goes_on_when_the_clock_is_set_back() -> None:
    """At half speed until the clock has caught up: a wait of a second must not take the hour that was set back."""
    log, clock = MemoryEventLog(), HourBack()
    writer = Writer(log, clock, SeededEntropy(1), Replayed(State(), GENESIS_HASH))
    await writer.begin("test", "0")
    clock.behind_us = 3_600_000_000
    clock.advance_ms(2000)

    await writer.begin("test", "0")

    first, second = (decode_record(stored).time_us for stored in log.store)
    assert second - first == 1_000_000


class HourBack(ManualClock):
    """A wall clock that may be set back; the monotonic one is not."""

    behind_us = 0

    def now_us(self) -> int:
        return super().now_us() - self.behind_us

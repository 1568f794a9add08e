"""A group of coordinators: one leads, another takes over, an old leader follows again; nothing is lost."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.batch import Accepted
from coordinator.core.commands import SubmitJob
from coordinator.core.events import TermEnded, TermStarted
from coordinator.core.model import JobSpec, ProbeSpec
from coordinator.standby import Standby
from coordinator.wire.records import decode_record
from hivefold import limits
from hivefold.errors import LogCorruptError, NotLeaderError, UnavailableError
from hivefold.ids import JobId, RequestId
from tests.unit.coordinator.fleet import until
from tests.unit.coordinator.group import Coordinator, folded, group


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEAD_AGAIN_S", 0.01)
    monkeypatch.setattr(limits, "HAND_OVER_REST_S", 0.3)
    monkeypatch.setattr(limits, "STANDBY_POLL_S", 0.01)
    monkeypatch.setattr("hivefold.lease.campaign.LEASE_POLL_MS", 10)
    monkeypatch.setattr("hivefold.lease.campaign.LEASE_GONE_MS", 30)


async def leader_of(coordinators: list[Coordinator]) -> Coordinator:
    """The one that leads."""
    await until(lambda: any(coordinator.leads for coordinator in coordinators))
    return next(coordinator for coordinator in coordinators if coordinator.leads)


async def submit(leader: Coordinator, request: str) -> Accepted:
    answer = await leader.leadership.writer.execute(
        SubmitJob(JobId(f"j-{request}-{leader.name}"), RequestId(request), JobSpec(ProbeSpec(1)))
    )
    assert isinstance(answer, Accepted)
    return answer


def terms(coordinator: Coordinator) -> list[str]:
    """Who began and ended terms, in order."""
    found = []
    for stored in coordinator.log.store:
        for event in decode_record(stored).events:
            match event:
                case TermStarted(coordinator_id=name):
                    found.append(name)
                case TermEnded():
                    found.append("end")
                case _:
                    pass
    return found


async def followed(coordinators: list[Coordinator], leader: Coordinator) -> None:
    """All others have the leader's state."""
    others = [coordinator for coordinator in coordinators if coordinator is not leader]

    def equal() -> bool:
        state = leader.leadership.writer.state
        return all(isinstance(o.current, Standby) and o.current.state == state for o in others)

    await until(equal)


async def test_one_leads_and_the_others_have_its_state() -> None:
    """Three at once: one term begins, and two standbys follow it."""
    async with group("a", "b", "c") as coordinators:
        leader = await leader_of(coordinators)
        await submit(leader, "r1")
        await followed(coordinators, leader)

        assert sum(coordinator.leads for coordinator in coordinators) == 1
        assert all(coordinator.member.healthy for coordinator in coordinators)
        assert terms(leader) == [leader.name]


async def test_when_the_leader_dies_another_knows_all_it_acknowledged() -> None:
    """kill -9: the next one answers a repeated request with the job that was there."""
    async with group("a", "b", "c") as coordinators:
        first = await leader_of(coordinators)
        known = await submit(first, "r1")
        first.kill()
        second = await leader_of([c for c in coordinators if c is not first])
        repeated = await submit(second, "r1")

        assert repeated.sequence == 0
        assert repeated.state.jobs == known.state.jobs
        assert terms(second) == [first.name, second.name]


async def test_a_leader_that_is_told_to_stop_hands_over() -> None:
    """Its term ends in the log, its lease is free at once, and what it still records is nothing."""
    async with group("a", "b", ttl_ms=60_000) as coordinators:
        first = await leader_of(coordinators)
        await submit(first, "r1")
        first.told_to_stop.set()
        await asyncio.wait_for(first.task, 5)
        second = await leader_of([c for c in coordinators if c is not first])

        assert terms(second) == [first.name, "end", second.name]
        assert first.open_terms == 0


async def test_a_leader_that_is_asked_to_hands_over_and_stays() -> None:
    """Its term ends in the log, another leads although the old leader is there, and that one follows and may lead."""
    async with group("a", "b", ttl_ms=60_000) as coordinators:
        first = await leader_of(coordinators)
        second = next(c for c in coordinators if c is not first)
        await submit(first, "r1")
        await asyncio.wait_for(first.member.hand_over(), 5)
        await leader_of([second])
        await submit(second, "r2")
        await followed(coordinators, second)

        assert terms(second) == [first.name, "end", second.name]
        assert first.campaign.leader is not None
        assert first.campaign.leader.coordinator_id == second.name
        with pytest.raises(NotLeaderError):
            await first.member.hand_over()
        await asyncio.wait_for(second.member.hand_over(), 5)
        await leader_of([first])
        assert terms(first) == [first.name, "end", second.name, "end", first.name]


async def test_one_that_is_alone_leads_again_after_handing_over() -> None:
    """Nobody else takes the lease: after a rest the same coordinator leads in the next term."""
    async with group("a") as (only,):
        await leader_of([only])
        await asyncio.wait_for(only.member.hand_over(), 5)
        await until(lambda: only.leads and only.leadership.writer.state.term == 2)

        assert terms(only) == ["a", "end", "a"]


async def test_a_deposed_leader_follows_again_and_may_lead_again() -> None:
    """Its log is silent while another takes over, as SIGSTOP makes it: it appends nothing, and goes on as a standby."""
    async with group("a", "b") as coordinators:
        first = await leader_of(coordinators)
        second = next(c for c in coordinators if c is not first)
        first.log.hold()
        first.lease.hold()
        late = asyncio.create_task(submit(first, "late"))
        await leader_of([second])
        records = len(second.log.store)
        first.log.release()
        first.lease.release()
        with pytest.raises(UnavailableError):
            await late
        await until(lambda: isinstance(first.current, Standby))
        assert len(second.log.store) == records
        assert first.open_terms == 0
        await submit(second, "late")
        second.kill()
        await leader_of([first])

        assert len(first.leadership.writer.state.jobs) == 1
        assert terms(first) == [first.name, second.name, first.name]


async def test_a_leader_that_is_deposed_while_it_is_told_to_end_ends() -> None:
    """A part that fails and the end of the whole in one turn of the loop: it does not live on as a standby."""
    async with group("a", "b") as coordinators:
        first = await leader_of(coordinators)
        second = next(c for c in coordinators if c is not first)
        first.log.hold()
        first.lease.hold()
        late = asyncio.create_task(submit(first, "late"))
        await leader_of([second])
        first.log.release()
        first.lease.release()
        first.task.cancel()
        await asyncio.wait({first.task, late}, timeout=5)

        assert first.task.cancelled()
        assert isinstance(late.exception(), NotLeaderError | UnavailableError)


async def test_a_standby_of_a_corrupt_log_ends_with_the_position() -> None:
    """It neither leads nor follows on: the process ends, and says where."""
    async with group("a", "b") as coordinators:
        leader = await leader_of(coordinators)
        standby = next(c for c in coordinators if c is not leader)
        await followed(coordinators, leader)
        standby.log.hold()
        await submit(leader, "r1")
        await submit(leader, "r2")
        removed = leader.log.store.pop(-2)
        standby.log.release()
        with pytest.raises(LogCorruptError) as stopped:
            await asyncio.wait_for(standby.task, 5)

        assert stopped.value.position == removed.sequence


async def test_every_take_over_is_replayed_to_the_same_state() -> None:
    """Five leaders one after another: the fold of the log is the last one's state."""
    async with group("a", "b", "c", "d", "e") as coordinators:
        left = list(coordinators)
        for number in range(len(left)):
            leader = await leader_of(left)
            await submit(leader, f"r{number}")
            assert (await folded(leader.log)).state == leader.leadership.writer.state
            leader.kill()
            left.remove(leader)
        state = (await folded(coordinators[0].log)).state

        assert len(state.jobs) == len(coordinators)
        assert state.term == len(coordinators)

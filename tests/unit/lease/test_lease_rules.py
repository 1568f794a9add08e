"""When a coordinator may lead, by a clock that only the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from hivefold.clock import ManualClock
from hivefold.errors import BrokerUnavailableError, LeaseLostError
from hivefold.lease.campaign import Campaign
from hivefold.lease.memory import LeaseStore, MemoryLease
from hivefold.lease.port import Holder
from hivefold.lease.tenure import Tenure
from hivefold.limits import LEASE_GONE_MS, LEASE_POLL_MS
from tests.unit.coordinator.fleet import LoopClock, on_virtual_time

TTL_MS = 3000


class Candidate:
    """A coordinator as far as the lease goes."""

    def __init__(self, store: LeaseStore, name: str, token: str = "") -> None:
        self.lease = MemoryLease(store)
        self.holder = Holder(name, f"{name}:1", token or f"token of {name}")
        self.campaign = Campaign(self.lease, store.clock, self.holder)

    async def win(self) -> Tenure:
        """Wins, at once."""
        async with asyncio.timeout(5):
            return await self.campaign.win()

    async def waits(self) -> asyncio.Task[Tenure]:
        """Campaigns, and has looked at the lease."""
        task = asyncio.create_task(self.campaign.win())
        await looked()
        return task


async def looked() -> None:
    """Lets everybody look at the lease; the timers of the campaigns do not come due meanwhile."""
    for _ in range(20):
        await asyncio.sleep(0)


def hint(store: LeaseStore) -> None:
    """Somebody claimed, or may have: all look again."""
    for listener in store.listeners:
        listener()


@asynccontextmanager
async def renewing(tenure: Tenure) -> AsyncIterator[asyncio.Task[None]]:
    """The tenure, kept."""
    task = asyncio.create_task(tenure.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> LeaseStore:
    return LeaseStore(clock, ttl_ms=TTL_MS)


@pytest.fixture
def ann(store: LeaseStore) -> Candidate:
    return Candidate(store, "ann")


@pytest.fixture
def bob(store: LeaseStore) -> Candidate:
    return Candidate(store, "bob")


async def test_of_two_candidates_one_leads(ann: Candidate, bob: Candidate) -> None:
    """Both campaign at once: one wins, the other waits and knows who leads."""
    tasks = {await ann.waits(): ann, await bob.waits(): bob}
    done = [task for task in tasks if task.done()]

    assert len(done) == 1
    winner = tasks[done[0]]
    assert done[0].result().valid()
    assert ann.campaign.leader == bob.campaign.leader == winner.holder
    for task in tasks:
        task.cancel()


async def test_a_leader_believes_in_its_lease_for_less_long_than_others_wait(
    ann: Candidate, bob: Candidate, clock: ManualClock, store: LeaseStore
) -> None:
    """At no moment may both act: what was not renewed is over for its holder before another can claim it."""
    tenure = await ann.win()
    waiting = await bob.waits()
    while not waiting.done():
        clock.advance_ms(100)
        hint(store)
        await looked()
        assert not (tenure.valid() and waiting.done())

    assert waiting.result().valid()


async def test_a_leader_that_was_stopped_finds_another(ann: Candidate, bob: Candidate, clock: ManualClock) -> None:
    """As SIGSTOP for 30 s: not valid from the first look at the clock on, and its renewal is told who leads."""
    tenure = await ann.win()
    clock.advance_ms(30_000)
    assert not tenure.valid()
    await bob.win()
    tenure.lead(1)
    async with renewing(tenure) as kept:
        with pytest.raises(LeaseLostError) as lost:
            await asyncio.wait_for(asyncio.shield(kept), 5)

    assert lost.value.metadata["leader"] == bob.holder.address
    assert not tenure.valid()


async def test_a_lease_that_lapsed_unclaimed_is_taken_again(ann: Candidate, clock: ManualClock) -> None:
    """A leader alone goes on after a stop: nobody else led meanwhile."""
    tenure = await ann.win()
    clock.advance_ms(30_000)
    tenure.lead(1)
    async with renewing(tenure):
        async with asyncio.timeout(5):
            while not tenure.valid():
                await asyncio.sleep(0)

        assert (await ann.lease.look()).holder == tenure.holder


async def test_who_takes_a_lapsed_lease_again_is_told_to_ask_the_log(
    ann: Candidate, bob: Candidate, clock: ManualClock
) -> None:
    """Another may have held it, led and lapsed too: the lease cannot tell (simulation, seed 1965)."""
    tenure = await ann.win()
    told: list[bool] = []
    tenure.on_lapse = lambda: told.append(tenure.valid())
    clock.advance_ms(30_000)
    await bob.win()
    clock.advance_ms(30_000)
    tenure.lead(1)
    async with renewing(tenure), asyncio.timeout(5):
        while not tenure.valid():
            await asyncio.sleep(0)

    assert told == [False]


async def test_a_renewal_whose_answer_was_lost_counts(ann: Candidate, store: LeaseStore) -> None:
    """The broker renewed, the leader was not told: it finds its own claim there and goes on from it."""
    tenure = await ann.win()
    store.write(ann.holder, store.revision)
    tenure.lead(4)
    async with renewing(tenure):
        async with asyncio.timeout(5):
            while store.current().holder != tenure.holder:
                await asyncio.sleep(0)

    assert tenure.valid()
    assert tenure.holder.term == 4


async def test_a_released_lease_is_taken_at_once(ann: Candidate, bob: Candidate) -> None:
    """No clock moves: who waits is woken by the release."""
    tenure = await ann.win()
    waiting = await bob.waits()
    assert not waiting.done()
    await tenure.release()

    assert (await asyncio.wait_for(waiting, 5)).valid()
    assert not tenure.valid()


async def test_a_lease_is_released_in_the_middle_of_a_renewal(ann: Candidate, bob: Candidate) -> None:
    """The renewal changes the revision: who lets go waits for its answer, and no successor for the lease to lapse."""
    tenure = await ann.win()
    async with renewing(tenure):
        ann.lease.hold()
        tenure.lead(1)
        await looked()
        releasing = asyncio.create_task(tenure.release())
        await looked()
        ann.lease.release()
        await asyncio.wait_for(releasing, 5)

        assert (await bob.win()).valid()


async def test_a_lease_is_released_after_a_renewal_that_nobody_waited_for(
    ann: Candidate, bob: Candidate, store: LeaseStore
) -> None:
    """The renewal took place and its answer was not read: the claim that stands is one's own, and is given up."""
    tenure = await ann.win()
    store.write(ann.holder, store.revision)
    await tenure.release()

    assert (await bob.win()).valid()


async def test_a_dead_leader_is_replaced_before_its_lease_lapses(
    ann: Candidate, bob: Candidate, clock: ManualClock, store: LeaseStore
) -> None:
    """The broker has no connection of it: after a moment, in which a reconnect would have come, another claims."""
    await ann.win()
    waiting = await bob.waits()
    ann.lease.disconnect()
    hint(store)
    await looked()
    assert not waiting.done()
    clock.advance_ms(LEASE_GONE_MS)
    assert LEASE_GONE_MS < TTL_MS
    hint(store)

    assert (await asyncio.wait_for(waiting, 5)).valid()


async def test_a_leader_that_reconnects_in_time_stays(
    ann: Candidate, bob: Candidate, clock: ManualClock, store: LeaseStore
) -> None:
    """A cut that is shorter than the patience costs no election."""
    await ann.win()
    waiting = await bob.waits()
    for _ in range(3):
        ann.lease.disconnect()
        hint(store)
        await looked()
        ann.lease.reconnect()
        clock.advance_ms(LEASE_GONE_MS // 2)
        hint(store)
        await looked()

    assert not waiting.done()
    waiting.cancel()


async def test_a_coordinator_that_was_started_again_takes_its_own_lease(ann: Candidate, store: LeaseStore) -> None:
    """Same id, same address, and the process that held it is gone: nobody has to wait for that lease."""
    await ann.win()
    ann.lease.disconnect()
    again = Candidate(store, "ann", token="of the new process")

    assert (await again.win()).valid()


async def test_two_that_share_an_id_do_not_take_it_from_each_other(ann: Candidate, store: LeaseStore) -> None:
    """While the one that holds it is there, another of the same name waits like any other."""
    await ann.win()
    twin = Candidate(store, "ann", token="of the twin")
    waiting = await twin.waits()

    assert not waiting.done()
    waiting.cancel()


class Full(MemoryLease):
    """A lease whose store can be read and has no room for a claim."""

    claims = 0

    async def claim(self, holder: Holder | None, *, revision: int) -> int:
        self.claims += 1
        assert self.claims < 1000, "asked without a pause"
        raise BrokerUnavailableError("insufficient storage resources available")


@on_virtual_time
async def test_a_lease_that_cannot_be_renewed_is_not_asked_for_without_a_pause() -> None:
    """A full disk refuses at once: the coordinator must not fill it with requests and log lines."""
    store = LeaseStore(LoopClock(), ttl_ms=TTL_MS)
    lease, holder = Full(store), Holder("ann", "ann:1", "t")
    tenure = Tenure(lease, store.clock, holder, store.write(holder, 0), store.clock.monotonic_ms())
    async with renewing(tenure) as kept:
        await asyncio.sleep(10)
        assert not kept.done()
    assert 5 < lease.claims <= 10_000 / LEASE_POLL_MS

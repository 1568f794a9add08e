"""What every Lease keeps to: the same suite for the fake and for a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Protocol

import pytest
import pytest_asyncio

from hivefold.bus import api
from hivefold.bus.connection import connect
from hivefold.bus.link import Link
from hivefold.clock import SystemClock
from hivefold.errors import ConfigError, LeaseLostError
from hivefold.lease.jetstream import STREAM, open_lease
from hivefold.lease.memory import LeaseStore, MemoryLease
from hivefold.lease.port import Holder, Lease, Standing
from hivefold.server.embedded import RunningServer

pytestmark = pytest.mark.integration

ANN = Holder("ann", "127.0.0.1:1", "token-a")
BOB = Holder("bob", "127.0.0.1:2", "token-b", term=7)


class Broker(Protocol):
    """Where leases are kept: each coordinator has a connection of its own."""

    async def connect(self) -> Lease: ...

    async def cut(self, lease: Lease) -> None:
        """The connection is gone, as a dead process leaves it."""


class MemoryBrokerOfLeases:
    def __init__(self) -> None:
        self._store = LeaseStore(SystemClock(), ttl_ms=1000)

    async def connect(self) -> Lease:
        return MemoryLease(self._store)

    async def cut(self, lease: Lease) -> None:
        assert isinstance(lease, MemoryLease)
        lease.disconnect()


class NatsBrokerOfLeases:
    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self.links: dict[int, Link] = {}

    async def connect(self) -> Lease:
        link = await connect(self._server.core)
        lease = await open_lease(link, ttl_s=1)
        self.links[id(lease)] = link
        return lease

    async def cut(self, lease: Lease) -> None:
        await self.links[id(lease)].close()


@pytest.fixture
def memory() -> Broker:
    return MemoryBrokerOfLeases()


@pytest_asyncio.fixture
async def jetstream(nats_server: RunningServer) -> AsyncIterator[Broker]:
    broker = NatsBrokerOfLeases(nats_server)
    yield broker
    for link in broker.links.values():
        await link.close()


@pytest.fixture(params=["memory", "jetstream"])
def broker(request: pytest.FixtureRequest) -> Broker:
    found: Broker = request.getfixturevalue(request.param)
    return found


@pytest_asyncio.fixture
async def ann(broker: Broker) -> Lease:
    return await broker.connect()


@pytest_asyncio.fixture
async def bob(broker: Broker) -> Lease:
    return await broker.connect()


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_nobody_holds_a_new_lease(ann: Lease) -> None:
    """Before the first claim nothing is stored."""
    assert await ann.look() == Standing(0, None)


async def test_a_claim_is_seen_by_all(ann: Lease, bob: Lease) -> None:
    """Who holds it, with address, token and term."""
    revision = await bob.claim(BOB, revision=0)

    assert await ann.look() == await bob.look() == Standing(revision, BOB)


async def test_of_two_candidates_one_wins(ann: Lease, bob: Lease) -> None:
    """Both claim what both saw free: one is refused."""
    outcomes = await asyncio.gather(ann.claim(ANN, revision=0), bob.claim(BOB, revision=0), return_exceptions=True)

    assert sum(isinstance(outcome, LeaseLostError) for outcome in outcomes) == 1
    winner = ANN if isinstance(outcomes[0], int) else BOB
    assert (await ann.look()).holder == winner


async def test_a_renewal_needs_the_latest_revision(ann: Lease, bob: Lease) -> None:
    """Each claim makes a new revision; who knows an older one only is refused, and changes nothing."""
    first = await ann.claim(ANN, revision=0)
    second = await ann.claim(replace(ANN, term=1), revision=first)
    with pytest.raises(LeaseLostError):
        await bob.claim(BOB, revision=first)

    assert second != first
    assert await bob.look() == Standing(second, replace(ANN, term=1))


async def test_a_lease_that_is_let_go_is_free_at_once(ann: Lease, bob: Lease) -> None:
    """Nobody holds it, and whoever saw that may claim it."""
    released = await ann.claim(None, revision=await ann.claim(ANN, revision=0))

    assert await bob.look() == Standing(released, None)
    await bob.claim(BOB, revision=released)
    assert (await ann.look()).holder == BOB


async def test_a_lease_that_is_not_renewed_lapses(ann: Lease, bob: Lease) -> None:
    """Then it is as if nothing had been stored; a late renewal is refused."""
    revision = await ann.claim(ANN, revision=0)

    async def lapsed() -> bool:
        return await bob.look() == Standing(0, None)

    await eventually(lapsed)
    with pytest.raises(LeaseLostError):
        await ann.claim(ANN, revision=revision)
    await bob.claim(BOB, revision=0)


async def test_a_renewal_holds_it_for_as_long_again(ann: Lease) -> None:
    """Renewed in time it outlives its first time to live."""
    revision = await ann.claim(ANN, revision=0)
    for _ in range(6):
        await asyncio.sleep(0.3)
        revision = await ann.claim(ANN, revision=revision)

    assert (await ann.look()).holder == ANN


async def test_who_died_can_be_told_from_who_is_there(broker: Broker, ann: Lease, bob: Lease) -> None:
    """A process is gone when its connection is, not before; one that never was there counts as gone."""
    await ann.attend(ANN)

    assert not await bob.is_gone(ANN)
    assert await bob.is_gone(BOB)
    await broker.cut(ann)

    async def gone() -> bool:
        return await bob.is_gone(ANN)

    await eventually(gone)


async def test_claims_wake_those_who_wait(ann: Lease, bob: Lease) -> None:
    """A standby need not ask again and again to learn of a release."""
    woken = asyncio.Event()
    bob.on_change(woken.set)
    revision = await ann.claim(ANN, revision=0)
    await asyncio.wait_for(woken.wait(), 5)

    woken.clear()
    await ann.claim(None, revision=revision)
    await asyncio.wait_for(woken.wait(), 5)


async def test_a_stream_that_cannot_hold_a_lease_is_refused(nats_server: RunningServer) -> None:
    """Without a time to live a dead leader would hold it for ever: the refusal says what to do."""
    link = await connect(nats_server.core)
    await api.call(link, f"STREAM.CREATE.{STREAM}", {"name": STREAM, "subjects": ["lease.>"]})

    with pytest.raises(ConfigError, match="delete it"):
        await open_lease(link)

    await link.close()

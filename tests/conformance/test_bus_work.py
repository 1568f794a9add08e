"""What every adapter of WorkSender and WorkReceiver keeps to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hivefold.bus.port import Delivery
from tests.fixtures.bus import NODE, Bus, MemoryBus, soon

pytestmark = pytest.mark.integration


async def _next(deliveries: AsyncIterator[Delivery]) -> Delivery:
    return await soon(anext(deliveries))


async def test_work_arrives_in_order_with_its_headers(bus: Bus) -> None:
    """Bytes as sent, header names in lower case."""
    coordinator, node = await bus.coordinator(), await bus.node()
    await coordinator.work_sender.prepare(NODE)
    await coordinator.work_sender.send(NODE, b"first", {"Traceparent": "00-a"})
    await coordinator.work_sender.send(NODE, b"second")
    deliveries = node.work_receiver.deliveries()
    first, second = await _next(deliveries), await _next(deliveries)
    assert (first.data, dict(first.headers)) == (b"first", {"traceparent": "00-a"})
    assert (second.data, dict(second.headers)) == (b"second", {})


async def test_work_waits_for_a_node_that_is_not_there_yet(bus: Bus) -> None:
    """Sending needs no receiver, nor a call of prepare."""
    coordinator = await bus.coordinator()
    await coordinator.work_sender.send(NODE, b"early")
    node = await bus.node()
    assert (await _next(node.work_receiver.deliveries())).data == b"early"


async def test_work_given_back_comes_again(bus: Bus) -> None:
    """At once, and as it was."""
    coordinator, node = await bus.coordinator(), await bus.node()
    await coordinator.work_sender.send(NODE, b"again", {"k": "v"})
    deliveries = node.work_receiver.deliveries()
    await (await _next(deliveries)).give_back()
    repeated = await _next(deliveries)
    assert (repeated.data, dict(repeated.headers)) == (b"again", {"k": "v"})


async def test_unanswered_work_comes_again_and_answered_work_does_not(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the wait for acknowledgements only what was not acknowledged is delivered."""
    monkeypatch.setattr("hivefold.bus.work.WORK_ACK_WAIT_S", 0.5)
    coordinator, node = await bus.coordinator(), await bus.node()
    await coordinator.work_sender.send(NODE, b"done")
    await coordinator.work_sender.send(NODE, b"open")
    deliveries = node.work_receiver.deliveries()
    await (await _next(deliveries)).acknowledge()
    await (await _next(deliveries)).in_progress()
    if isinstance(bus, MemoryBus):
        bus.broker.redeliver(NODE)
    assert (await _next(deliveries)).data == b"open"


async def test_forgotten_work_is_gone(bus: Bus) -> None:
    """Forget drops what waits; forgetting twice, or someone unknown, is no error; the node may come back."""
    coordinator, node = await bus.coordinator(), await bus.node()
    await coordinator.work_sender.send(NODE, b"old")
    await coordinator.work_sender.forget(NODE)
    await coordinator.work_sender.forget(NODE)
    await coordinator.work_sender.send(NODE, b"new")
    assert (await _next(node.work_receiver.deliveries())).data == b"new"


async def test_close_ends_the_deliveries(bus: Bus) -> None:
    """A receiver that waits is woken."""
    node = await bus.node()
    waiting = asyncio.ensure_future(anext(node.work_receiver.deliveries(), None))
    await asyncio.sleep(0)
    await node.work_receiver.close()
    assert await soon(waiting) is None


async def test_work_goes_on_after_the_broker_was_killed(bus: Bus) -> None:
    """The stream was in memory: sender and receiver, both untouched, find each other again."""
    coordinator, node = await bus.coordinator(), await bus.node()
    deliveries = node.work_receiver.deliveries()
    await coordinator.work_sender.send(NODE, b"before")
    await (await _next(deliveries)).acknowledge()
    waiting = asyncio.ensure_future(anext(deliveries))
    await asyncio.sleep(0)
    await bus.stop_server()
    await bus.start_server()
    await coordinator.work_sender.send(NODE, b"after")
    assert (await soon(waiting)).data == b"after"


async def test_an_answer_from_before_the_broker_was_killed_concerns_no_new_work(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late acknowledgement of work that the broker has forgotten does not settle what was sent since."""
    monkeypatch.setattr("hivefold.bus.work.WORK_ACK_WAIT_S", 0.5)
    coordinator, node = await bus.coordinator(), await bus.node()
    deliveries = node.work_receiver.deliveries()
    await coordinator.work_sender.send(NODE, b"before")
    old = await _next(deliveries)
    await bus.stop_server()
    await bus.start_server()
    await coordinator.work_sender.send(NODE, b"after")
    assert (await _next(deliveries)).data == b"after"
    await old.acknowledge()
    if isinstance(bus, MemoryBus):
        bus.broker.redeliver(NODE)
    assert (await _next(deliveries)).data == b"after"


async def test_work_goes_on_after_a_consumer_was_lost(bus: Bus) -> None:
    """A receiver whose consumer is deleted binds to the next one by itself."""
    coordinator, node = await bus.coordinator(), await bus.node()
    deliveries = node.work_receiver.deliveries()
    await coordinator.work_sender.send(NODE, b"before")
    await (await _next(deliveries)).acknowledge()
    waiting = asyncio.ensure_future(anext(deliveries))
    await coordinator.work_sender.forget(NODE)
    await coordinator.work_sender.send(NODE, b"after")
    assert (await soon(waiting)).data == b"after"


async def test_a_node_that_comes_back_while_it_is_forgotten_gets_its_work(bus: Bus) -> None:
    """In whichever order preparing and forgetting meet, what is sent afterwards arrives."""
    coordinator, node = await bus.coordinator(), await bus.node()
    sender, deliveries = coordinator.work_sender, node.work_receiver.deliveries()
    for number in range(10):
        both = [sender.prepare(NODE), sender.forget(NODE)]
        await asyncio.gather(*(both if number % 2 else reversed(both)))
        await sender.send(NODE, b"%d" % number)
        delivery = await _next(deliveries)
        assert delivery.data == b"%d" % number
        await delivery.acknowledge()

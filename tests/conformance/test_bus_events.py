"""What every adapter of EventSender keeps to."""

from __future__ import annotations

import asyncio

import pytest

from hivefold.bus.port import Message
from hivefold.limits import EVENTS_BATCH
from tests.fixtures.bus import Bus, eventually, soon

pytestmark = pytest.mark.integration


async def test_an_empty_stream_has_sequence_zero(bus: Bus) -> None:
    """Then all events since record 1 are owed."""
    assert await (await bus.coordinator()).event_sender.last_sequence() == 0


async def test_events_reach_subscribers_in_order_and_the_last_is_known(bus: Bus) -> None:
    """Plain subscribers in any language follow along; more than one batch keeps its order."""
    coordinator, follower = await bus.coordinator(), await bus.coordinator()
    heard: list[Message] = []
    await follower.signals.subscribe("events.job.*", heard.append)
    await follower.event_sender.last_sequence()  # the broker has the subscription by now
    events = [(f"events.job.j{number % 3}", b"%d" % number, 7 + number) for number in range(2 * EVENTS_BATCH + 1)]
    await coordinator.event_sender.send(events)
    await eventually(lambda: len(heard) == len(events))
    assert [(message.subject, message.data) for message in heard] == [event[:2] for event in events]
    assert heard[-1].headers["hivefold-sequence"] == str(events[-1][2])
    assert await coordinator.event_sender.last_sequence() == events[-1][2]


async def test_events_outlive_the_broker(bus: Bus) -> None:
    """What is sent while it is away is stored after its return; what was stored is still known."""
    coordinator = await bus.coordinator()
    await coordinator.event_sender.send([("events.node.n1", b"1", 1)])
    await bus.stop_server()
    sending = asyncio.ensure_future(coordinator.event_sender.send([("events.node.n1", b"2", 2)]))
    await asyncio.sleep(0)
    await bus.start_server()
    await soon(sending)
    assert await coordinator.event_sender.last_sequence() == 2

"""What every adapter of Signals keeps to."""

from __future__ import annotations

import asyncio

import pytest

from hivefold.bus.port import Message
from tests.fixtures.bus import Bus, Ends, NatsBus, eventually

pytestmark = pytest.mark.integration


async def _publish_until(ends: Ends, message: Message, heard: list[Message]) -> None:
    """A subscription may take a moment to reach the broker: signals are lossy, so say it again."""
    async with asyncio.timeout(20):
        while message.data not in [found.data for found in heard]:
            ends.signals.publish(message)
            await asyncio.sleep(0.01)


async def test_a_signal_reaches_those_who_subscribed_to_its_subject(bus: Bus) -> None:
    """Wildcards match as NATS says; header names arrive in lower case."""
    coordinator, node = await bus.coordinator(), await bus.node()
    heard: list[Message] = []
    others: list[Message] = []
    await coordinator.signals.subscribe("heartbeat.*", heard.append)
    await coordinator.signals.subscribe("telemetry.>", others.append)
    message = Message("heartbeat.node-1", b"alive", {"Traceparent": "00-1-2-3"})
    await _publish_until(node, message, heard)
    assert heard[0] == Message("heartbeat.node-1", b"alive", {"traceparent": "00-1-2-3"})
    assert others == []


async def test_a_stopped_subscription_hears_nothing(bus: Bus) -> None:
    """Stop ends the calls; other subscriptions go on."""
    coordinator, node = await bus.coordinator(), await bus.node()
    stopped: list[Message] = []
    heard: list[Message] = []
    await (await coordinator.signals.subscribe("heartbeat.*", stopped.append)).stop()
    await coordinator.signals.subscribe("heartbeat.*", heard.append)
    await _publish_until(node, Message("heartbeat.node-1", b"1"), heard)
    assert stopped == []


async def test_a_handler_that_fails_harms_nobody_else(nats_bus: NatsBus) -> None:
    """One bad message must not end the connection: the next message still arrives."""
    coordinator, node = await nats_bus.coordinator(), await nats_bus.node()
    heard: list[Message] = []

    def fail_once(message: Message) -> None:
        heard.append(message)
        if len(heard) == 1:
            raise ValueError("bad message")

    await coordinator.signals.subscribe("heartbeat.*", fail_once)
    await _publish_until(node, Message("heartbeat.node-1", b"1"), heard)
    await _publish_until(node, Message("heartbeat.node-1", b"2"), heard)


async def test_signals_outlive_the_broker(bus: Bus) -> None:
    """While it is away publishing is silent; afterwards reconnects are told and subscriptions work."""
    coordinator, node = await bus.coordinator(), await bus.node()
    heard: list[Message] = []
    reconnects: list[bool] = []
    await coordinator.signals.subscribe("heartbeat.*", heard.append)
    coordinator.signals.on_reconnect(lambda: reconnects.append(True))
    await bus.stop_server()
    assert not node.signals.connected
    node.signals.publish(Message("heartbeat.node-1", b"lost"))
    await bus.start_server()
    await eventually(lambda: reconnects == [True])
    assert coordinator.signals.connected
    await _publish_until(node, Message("heartbeat.node-1", b"back"), heard)
    assert b"lost" not in [message.data for message in heard]

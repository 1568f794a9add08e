"""The bus over NATS through broken connections, lost answers and killed servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from hivefold.broker import BrokerSettings
from hivefold.bus.connection import connect
from hivefold.bus.link import Link
from hivefold.bus.port import Message
from hivefold.bus.results import NatsResultReceiver, NatsResultSender
from hivefold.bus.signals import NatsSignals
from hivefold.bus.work import NatsWorkReceiver, NatsWorkSender
from tests.fixtures.bus import NODE, NatsBus, eventually, soon
from tests.fixtures.proxy import LossyProxy

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def proxy(nats_bus: NatsBus) -> AsyncIterator[LossyProxy]:
    """Between one client and the server."""
    port = urlsplit(nats_bus.server.url).port
    assert port is not None
    async with LossyProxy(port) as found:
        yield found


@contextlib.asynccontextmanager
async def _through(proxy: LossyProxy, settings: BrokerSettings) -> AsyncIterator[Link]:
    link = await connect(replace(settings, servers=(f"127.0.0.1:{proxy.port}",)))
    try:
        yield link
    finally:
        await link.close()


def _outcomes(start: int, count: int) -> list[tuple[str, bytes]]:
    return [(f"results.{NODE}.job-a.{task}.1", b"%d" % task) for task in range(start, start + count)]


async def test_a_receiver_whose_connection_breaks_misses_nothing(nats_bus: NatsBus, proxy: LossyProxy) -> None:
    """Whatever was in flight at each break: every outcome once, in order, no matter what is acknowledged."""
    await nats_bus.coordinator_link()
    sender = NatsResultSender(await nats_bus.node_link())
    sequences: list[int] = []

    async def receive(receiver: NatsResultReceiver) -> None:
        async for batch in receiver.batches():
            sequences.extend(message.sequence for message in batch)
            await receiver.acknowledge(batch[len(batch) // 2].sequence)
            if len(sequences) >= 10_000:
                return

    async with _through(proxy, nats_bus.server.nodes) as link:
        receiving = asyncio.ensure_future(receive(NatsResultReceiver(link)))
        for start in range(0, 10_000, 1000):
            await sender.send(_outcomes(start, 1000))
            proxy.cut()
        await soon(receiving)
    assert sequences == list(range(1, 10_001))


async def test_a_sender_that_hears_no_answer_stores_each_outcome_once(
    nats_bus: NatsBus, proxy: LossyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch was stored but nobody said so: sending it again finds every subject taken."""
    monkeypatch.setattr("hivefold.bus.results.BROKER_ANSWER_S", 0.2)
    receiver = NatsResultReceiver(await nats_bus.coordinator_link())
    async with _through(proxy, await nats_bus.server.node(NODE)) as link:
        sender = NatsResultSender(link)
        await sender.send(_outcomes(0, 1))
        proxy.swallow_answers = True
        sending = asyncio.ensure_future(sender.send(_outcomes(1, 300)))
        found: list[bytes] = []
        batches = receiver.batches()
        while len(found) < 301:
            found.extend(message.data for message in await soon(anext(batches)))
        assert not sending.done()
        proxy.heal()
        await soon(sending)
    await NatsResultSender(await nats_bus.node_link()).send(_outcomes(301, 1))
    found.extend(message.data for message in await soon(anext(batches)))
    assert sorted(map(int, found)) == list(range(302))


async def test_a_pull_request_that_got_lost_is_made_again(
    nats_bus: NatsBus, proxy: LossyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No heartbeat comes for it, so the receiver asks anew: silence is never for ever."""
    monkeypatch.setattr("hivefold.bus.pull.PULL_HEARTBEAT_S", 0.2)
    monkeypatch.setattr("hivefold.bus.pull._SILENCE_S", 0.5)
    sender = NatsWorkSender(await nats_bus.coordinator_link())
    await sender.prepare(NODE)
    async with _through(proxy, await nats_bus.server.node(NODE)) as link:
        proxy.swallow_requests_after = 0
        waiting = asyncio.ensure_future(anext(NatsWorkReceiver(link, NODE).deliveries()))
        await asyncio.sleep(0.1)  # the first request is on its way into nowhere
        proxy.heal()
        await sender.send(NODE, b"work")
        assert (await soon(waiting)).data == b"work"


async def test_every_task_ends_once_while_the_server_is_killed_again_and_again(nats_bus: NatsBus) -> None:
    """Work that was lost with the server's memory is sent again after the reconnect; outcomes never are lost."""
    coordinator, node = await nats_bus.coordinator_link(), await nats_bus.node_link()
    sender, receiver = NatsWorkSender(coordinator), NatsResultReceiver(coordinator)
    open_tasks = {b"%d" % task for task in range(600)}
    answered: list[bytes] = []
    owed = asyncio.Event()
    NatsSignals(coordinator).on_reconnect(owed.set)
    owed.set()

    async def dispatch() -> None:
        while True:
            await owed.wait()
            owed.clear()
            for task in sorted(open_tasks):
                with contextlib.suppress(Exception):
                    await sender.send(NODE, task)

    async def work() -> None:
        results = NatsResultSender(node)
        async for delivery in NatsWorkReceiver(node, NODE).deliveries():
            await results.send([(f"results.{NODE}.job-a.{delivery.data.decode()}.1", delivery.data)])
            await delivery.acknowledge()

    async def record() -> None:
        async for batch in receiver.batches():
            answered.extend(message.data for message in batch)
            open_tasks.difference_update(message.data for message in batch)
            await receiver.acknowledge(batch[-1].sequence)

    running = [asyncio.ensure_future(part()) for part in (dispatch, work, record)]
    try:
        for target in (100, 250, 400):
            await eventually(lambda target=target: len(answered) >= target)  # type: ignore[misc]
            await nats_bus.stop_server()
            await nats_bus.start_server()
        await eventually(lambda: not open_tasks)
    finally:
        for part in running:
            part.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert sorted(answered) == sorted(b"%d" % task for task in range(600))


async def test_a_node_may_not_speak_for_another(nats_bus: NatsBus) -> None:
    """Its rights end at its own subjects; its connection goes on all the same."""
    coordinator = NatsSignals(await nats_bus.coordinator_link())
    node = NatsSignals(await nats_bus.node_link())
    heard: list[Message] = []
    await coordinator.subscribe("heartbeat.*", heard.append)
    async with asyncio.timeout(20):
        while not heard:
            node.publish(Message("heartbeat.node-2", b"forged"))
            node.publish(Message(f"heartbeat.{NODE}", b"own"))
            await asyncio.sleep(0.01)
    assert {message.subject for message in heard} == {f"heartbeat.{NODE}"}

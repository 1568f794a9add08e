"""Work that goes out as a signal goes to its stream only where it is not soon done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from coordinator.writer import Writer
from hivefold.bus.memory import MemoryBroker, MemoryConnection
from hivefold.bus.port import Message
from hivefold.limits import EXPRESS_COPY_MS
from hivefold.log.memory import MemoryEventLog
from hivefold.v1 import work_pb2
from tests.unit.coordinator.fleet import ScriptedNode, coordinating, on_virtual_time, until, working
from tests.unit.coordinator.test_fleet_in_memory import ended, submit


@asynccontextmanager
async def hearing(connection: MemoryConnection, *, answering: bool) -> AsyncIterator[list[work_pb2.WorkBatch]]:
    """A node's ear for work that comes as a signal; it may answer at once, as a signal."""
    heard: list[work_pb2.WorkBatch] = []
    signals = connection.signals()

    def take(message: Message) -> None:
        batch = work_pb2.WorkBatch.FromString(message.data)
        heard.append(batch)
        for item in batch.items if answering else ():
            outcome = work_pb2.Outcome(
                job_id=batch.job_id, task=item.task, attempt=item.attempt, node_id="n1", boot_id="b1", term=batch.term
            )
            subject = f"express.results.n1.{batch.job_id}.{item.task}.{item.attempt}"
            signals.publish(Message(subject, outcome.SerializeToString()))

    subscription = await signals.subscribe("express.work.n1", take)
    yield heard
    await subscription.stop()


@asynccontextmanager
async def hearing_fleet(*, answering: bool) -> AsyncIterator[tuple[Writer, ScriptedNode, list[work_pb2.WorkBatch]]]:
    """A coordinator and one node, which has joined and hears signals; with what it heard so far."""
    broker = MemoryBroker()
    node = ScriptedNode(broker, "n1")
    async with coordinating(MemoryEventLog(), broker) as writer, working(node):
        await until(lambda: len(writer.state.nodes) == 1)
        await asyncio.sleep(1)
        async with hearing(broker.connect(), answering=answering) as heard:
            yield writer, node, heard


@on_virtual_time
async def test_work_that_is_done_before_its_copy_is_due_never_goes_to_the_stream() -> None:
    """The signal is all that it takes: the broker stores nothing, and the node is handed nothing twice."""
    async with hearing_fleet(answering=True) as (writer, node, heard):
        job_id = await submit(writer, 1)
        await until(lambda: ended(writer, job_id))
        await asyncio.sleep(2 * EXPRESS_COPY_MS / 1000)

        assert [[item.task for item in batch.items] for batch in heard] == [[0]]
        assert node.seen == []


@on_virtual_time
async def test_work_that_is_not_soon_done_comes_by_the_stream_as_well() -> None:
    """A signal that is lost costs EXPRESS_COPY_MS, and no timer of the fleet's."""
    async with hearing_fleet(answering=False) as (writer, node, heard):
        began_s = asyncio.get_running_loop().time()
        job_id = await submit(writer, 1)
        await until(lambda: ended(writer, job_id))
        took_s = asyncio.get_running_loop().time() - began_s

        assert len(heard) == 1
        assert node.seen == [(job_id, 0, 1)]
        assert EXPRESS_COPY_MS / 1000 <= took_s < 2 * EXPRESS_COPY_MS / 1000

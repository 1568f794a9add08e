"""A fleet in one process: the coordinator's real parts over the fake broker and log, and scripted nodes."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from coordinator.lead import Ends, LeadSettings, take_lead
from coordinator.presence import PresenceSettings
from coordinator.writer import Writer
from hivefold.bus.memory import MemoryBroker
from hivefold.bus.port import Message
from hivefold.entropy import SeededEntropy
from hivefold.log.memory import MemoryEventLog
from hivefold.v1 import error_pb2, fleet_pb2, work_pb2
from tests.fixtures.keys import memory_job_keys
from tests.simulation.loop import VirtualLoop

_DEADLINE_S = 10.0


class LoopClock:
    """Time as the event loop has it: on a virtual one, a machine that is busy makes nobody look silent."""

    def now_us(self) -> int:
        """Unix time in microseconds."""
        return 1_700_000_000_000_000 + self.monotonic_ms() * 1000

    def monotonic_ms(self) -> int:
        """Milliseconds of the loop."""
        return int(asyncio.get_running_loop().time() * 1000)


def on_virtual_time(test: Callable[[], Coroutine[None, None, None]]) -> Callable[[], None]:
    """Runs a test on a loop whose clock jumps to the next timer."""

    @functools.wraps(test)
    def run() -> None:
        loop = VirtualLoop(random.Random(0), shuffle=False)
        try:
            loop.run_until_complete(test())
        finally:
            loop.close()

    del run.__wrapped__  # pytest would take it for the coroutine function that it wraps
    return run


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition; fails the test when it does not come true in time."""
    async with asyncio.timeout(_DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.002)


@dataclass
class ScriptedNode:
    """A node that answers every attempt as its script says: None keeps silent."""

    broker: MemoryBroker
    node_id: str
    boot_id: str = "b1"
    slots: int = 1
    script: Callable[[work_pb2.WorkItem], work_pb2.Outcome | None] = lambda item: work_pb2.Outcome(row_count=1)
    seen: list[tuple[str, int, int]] = field(default_factory=list)
    terms: list[int] = field(default_factory=list)
    leaving: bool = False
    outstanding: int = 0
    broken: frozenset[str] = frozenset()
    """Digests of models that it cannot load."""
    order: work_pb2.KeepModels = field(default_factory=work_pb2.KeepModels)
    """What it was last told to keep: it has that loaded at once."""

    async def run(self) -> None:
        """Beats and works until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat())
            group.create_task(self._work())

    async def _beat(self) -> None:
        signals = self.broker.connect().signals()
        await signals.subscribe(f"control.{self.node_id}", self._on_control)
        counter = 0
        while True:
            counter += 1
            spec = fleet_pb2.NodeSpec(
                node_id=self.node_id, boot_id=self.boot_id, slot_count=self.slots, memory_bytes=1 << 34
            )
            beat = work_pb2.Heartbeat(
                spec=spec,
                counter=counter,
                attempts_outstanding=self.outstanding,
                memory_available_bytes=1 << 33,
                leaving=self.leaving,
                loaded_models=sorted(kept.digest for kept in self.order.models if kept.digest not in self.broken),
                kept_sequence=self.order.sequence,
            )
            for kept in self.order.models:
                if kept.digest in self.broken:
                    beat.models_in_progress.add(digest=kept.digest, failure=error_pb2.Failure(message="too large"))
            signals.publish(Message(f"heartbeat.{self.node_id}", beat.SerializeToString()))
            await asyncio.sleep(0.02)

    def _on_control(self, message: Message) -> None:
        order = work_pb2.KeepModels.FromString(message.data)
        if order.boot_id == self.boot_id and order.sequence >= self.order.sequence:
            self.order = order

    async def _work(self) -> None:
        connection = self.broker.connect()
        sender = connection.result_sender()
        async for delivery in connection.work_receiver(self.node_id).deliveries():
            batch = work_pb2.WorkBatch.FromString(delivery.data)
            self.terms.append(batch.term)
            self.outstanding += len(batch.items)
            outcomes: list[tuple[str, bytes]] = []
            for item in batch.items:
                self.seen.append((batch.job_id, item.task, item.attempt))
                answer = self.script(item)
                if answer is None:
                    continue
                self.outstanding -= 1
                answer.job_id, answer.task, answer.attempt = batch.job_id, item.task, item.attempt
                answer.node_id, answer.boot_id, answer.term = self.node_id, self.boot_id, batch.term
                subject = f"results.{self.node_id}.{batch.job_id}.{item.task}.{item.attempt}"
                outcomes.append((subject, answer.SerializeToString()))
            await sender.send(outcomes)
            await delivery.acknowledge()


@asynccontextmanager
async def coordinating(log: MemoryEventLog, broker: MemoryBroker) -> AsyncIterator[Writer]:
    """The coordinator's parts, running; they die without a word at the end."""
    connection = broker.connect()
    ends = Ends(log, connection.signals(), connection.work_sender(), connection.result_receiver(), memory_job_keys())
    settings = PresenceSettings("127.0.0.1:1", suspect_after_ms=150, lost_after_ms=300, heartbeat_ms=20)
    seed = (await log.head()).sequence
    lead = await take_lead(ends, LoopClock(), SeededEntropy(seed), LeadSettings("test", "0", settings))
    tasks = [asyncio.create_task(part) for part in lead.parts()]
    try:
        yield lead.writer
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def working(*nodes: ScriptedNode) -> AsyncIterator[None]:
    """Nodes, running; they die without a word at the end."""
    tasks = [asyncio.create_task(node.run()) for node in nodes]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

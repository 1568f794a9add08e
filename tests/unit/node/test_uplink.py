"""Outcomes on their way to the results stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hivefold import limits
from hivefold.bus.frames import check_length
from hivefold.bus.memory import MemoryBroker
from hivefold.bus.port import Message
from hivefold.v1 import model_pb2, work_pb2
from node.core import Attempt
from node.uplink import Uplink
from node.wire import OutcomeWriter, Output
from tests.unit.coordinator.fleet import on_virtual_time


class Gate:
    """A sender that waits to be told that it may send."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may_send = asyncio.Semaphore(0)

    async def send(self, outcomes: Sequence[tuple[str, bytes]]) -> None:
        self.batches.append([subject for subject, _ in outcomes])
        await self.may_send.acquire()


async def turn() -> None:
    """Lets everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_gathers_during_a_send_goes_out_with_the_next() -> None:
    """A group commit: one send at a time, as much as there is."""
    gate = Gate()
    stored: list[str] = []
    uplink = Uplink(gate, MemoryBroker().connect().signals(), batch_outcomes=10)
    running = asyncio.create_task(uplink.run())
    for name in "abc":
        uplink.put([(name, b"")], lambda name=name: stored.append(name))  # type: ignore[misc]
        await turn()
    assert gate.batches == [["a"]]
    assert stored == []
    gate.may_send.release()
    await turn()
    assert gate.batches == [["a"], ["b", "c"]]
    assert stored == ["a"]
    gate.may_send.release()
    await turn()
    assert stored == ["a", "b", "c"]
    running.cancel()


async def test_a_send_is_bounded_and_what_belongs_together_stays_together() -> None:
    """At most the given number of outcomes, except for one piece that is larger."""
    gate = Gate()
    uplink = Uplink(gate, MemoryBroker().connect().signals(), batch_outcomes=3)
    for size in (2, 2, 5):
        uplink.put([(str(size), b"")] * size, lambda: None)
    running = asyncio.create_task(uplink.run())
    for _ in range(3):
        gate.may_send.release()
    await turn()
    assert [len(batch) for batch in gate.batches] == [2, 2, 5]
    running.cancel()


async def test_express_outcomes_are_told_before_they_are_stored_where_nothing_else_waits() -> None:
    """The first goes out as a signal, too; what comes meanwhile does not: it is many, and is stored at once with it."""
    gate = Gate()
    broker = MemoryBroker()
    told: list[Message] = []
    await broker.connect().signals().subscribe("express.results.>", told.append)
    uplink = Uplink(gate, broker.connect().signals(), batch_outcomes=10)
    running = asyncio.create_task(uplink.run())
    uplink.put([("results.n.j.a.1", b"a")], lambda: None, express=True)
    assert [(message.subject, message.data) for message in told] == [("express.results.n.j.a.1", b"a")]
    await turn()
    assert gate.batches == []
    for name in "bc":
        uplink.put([(f"results.n.j.{name}.1", name.encode())], lambda: None, express=True)
    await turn()
    assert gate.batches == [[f"results.n.j.{name}.1" for name in "abc"]]
    assert len(told) == 1
    running.cancel()


def test_no_model_makes_an_outcome_that_the_broker_does_not_take() -> None:
    """The bounds add up: a node that had one that is too large would end, and so would the next one that tried."""
    part = work_pb2.TensorPart(
        name="n" * limits.MODEL_NAME_BYTES, data_type=model_pb2.DATA_TYPE_FP32, shape=[2**63] * (limits.TENSOR_RANK + 1)
    )
    blob = work_pb2.TaskOutput(tensors=[part] * limits.MODEL_TENSORS, digest="d" * 64, size_bytes=2**63)
    writer = OutcomeWriter("n" * 64, "b" * 64, "j" * 64, 2**63, "t" * 64)
    attempt = Attempt(2**63, 2**31, 0, 2**31)
    ((subject, data),) = writer.produced(attempt, 2**52, 2**52, Output(blob, bytes(limits.INLINE_OUTPUT_BYTES)))
    check_length(subject, len(data))
    assert len(data) > limits.MODEL_TENSORS * limits.MODEL_NAME_BYTES


@on_virtual_time
async def test_what_was_told_is_stored_soon_by_itself() -> None:
    """A signal may be lost: the outcome waits for nobody else to come."""
    gate = Gate()
    uplink = Uplink(gate, MemoryBroker().connect().signals(), batch_outcomes=10)
    running = asyncio.create_task(uplink.run())
    uplink.put([("results.n.j.a.1", b"a")], lambda: None, express=True)
    await asyncio.sleep(1.5 * limits.EXPRESS_STORE_MS / 1000)
    assert gate.batches == [["results.n.j.a.1"]]
    running.cancel()

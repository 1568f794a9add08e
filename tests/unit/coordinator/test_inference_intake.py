"""Batches of inference on their way into the log: recorded once, whoever leads; foreign and spoiled ones."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from coordinator.core.commands import RecordInferences
from coordinator.core.events import InferencesRecorded
from coordinator.inference_intake import InferenceIntake, read_batch
from coordinator.writer import Writer
from hivefold import limits
from hivefold.bus.memory import MemoryBroker
from hivefold.bus.port import ResultMessage
from hivefold.oip.limits import AUDIT_SUMMARY_BYTES
from hivefold.v1 import audit_pb2
from tests.unit.coordinator.inference import batch_bytes, leading, subject_of


def stored(sequence: int, number: int, data: bytes, node: str = "n1", boot: str = "boot-1") -> ResultMessage:
    return ResultMessage(sequence, subject_of(number, node, boot), data)


def test_the_log_says_what_a_batch_holds_and_the_digest_of_its_bytes() -> None:
    """Windows whole; of the requests their number."""
    data = batch_bytes(3, requests=2)

    found = read_batch(stored(17, 3, data))

    assert found is not None
    batch, size = found
    assert (batch.node_id, batch.boot_id, batch.number, batch.position) == ("n1", "boot-1", 3, 17)
    assert (batch.digest, batch.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (batch.request_count, len(batch.windows), batch.windows[0].request_count) == (2, 1, 2)
    assert size < 1000


def _with(**fields: object) -> bytes:
    batch = audit_pb2.InferenceBatch.FromString(batch_bytes(1))
    for name, value in fields.items():
        setattr(batch.windows[0], name, value)
    return batch.SerializeToString()


def _crowded() -> bytes:
    batch = audit_pb2.InferenceBatch.FromString(batch_bytes(1))
    batch.windows[0].batch_rows.extend(range(AUDIT_SUMMARY_BYTES))
    return batch.SerializeToString()


@pytest.mark.parametrize(
    "data",
    [b"\xff\xff", batch_bytes(2), batch_bytes(1, node="n2"), _with(model="M!"), _with(model_digest="x"), _crowded()],
)
def test_a_spoiled_batch_is_recorded_with_its_digest_alone(data: bytes) -> None:
    """No parse, another number or node, names that are none, too much: it took its place, and that shows."""
    found = read_batch(stored(1, 1, data))

    assert found is not None
    batch, _ = found
    assert (batch.number, batch.windows, batch.request_count) == (1, (), 0)
    assert batch.digest == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "subject", ["inference.n1.boot-1", "inference.n1.boot-1.x", "inference.N.b.1", "results.a.b.1.1"]
)
def test_a_subject_that_names_no_batch_is_passed_over(subject: str) -> None:
    """Nobody could say whose it is."""
    assert read_batch(ResultMessage(1, subject, batch_bytes(1))) is None


async def recorded_by(writer: Writer, broker: MemoryBroker, up_to: int) -> None:
    """Runs the intake until the batches up to a position are acknowledged."""
    running = asyncio.create_task(InferenceIntake(writer, broker.connect().result_receiver()).run())
    while broker.acknowledged < up_to:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait((running,))


async def test_what_comes_again_after_a_crash_is_recorded_once() -> None:
    """The broker did not hear the acknowledgement; the state knows the position."""
    broker = MemoryBroker()
    broker.store_result(subject_of(1), batch_bytes(1))
    broker.store_result(subject_of(2), batch_bytes(2))
    async with leading() as writer:
        await recorded_by(writer, broker, 2)
        before = writer.state
        broker.acknowledged = 0
        await recorded_by(writer, broker, 2)

        assert writer.state == before
        assert before.inference_position == 2

        broker.store_result(subject_of(3), batch_bytes(3))
        await recorded_by(writer, broker, 3)
        assert (writer.state.inference_position, writer.state.sequence) == (3, before.sequence + 1)


async def test_what_waits_is_recorded_together() -> None:
    """The log grows with seconds, not with batches."""
    broker = MemoryBroker()
    for number in range(1, 6):
        broker.store_result(subject_of(number), batch_bytes(number))
    async with leading() as writer:
        before = writer.state.sequence
        await recorded_by(writer, broker, 5)

        assert writer.state.sequence == before + 1


async def test_where_much_waits_there_is_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise many busy nodes would fill the stream faster than it is read, and the oldest would go unrecorded."""
    monkeypatch.setattr(limits, "PULL_MESSAGES", 4)
    monkeypatch.setattr("coordinator.inference_intake.AUDIT_GATHER_S", 3600.0)
    broker = MemoryBroker()
    for number in range(1, 6):
        broker.store_result(subject_of(number), batch_bytes(number))
    async with leading() as writer, asyncio.timeout(5):
        running = asyncio.create_task(InferenceIntake(writer, broker.connect().result_receiver()).run())
        for number in (5, 6):
            while broker.acknowledged < number:
                await asyncio.sleep(0)
            broker.store_result(subject_of(6), batch_bytes(6))
        running.cancel()
        await asyncio.wait((running,))


async def test_batches_out_of_order_are_passed_over() -> None:
    """Positions only grow; each fresh one counts."""
    batches = [read_batch(stored(position, position, batch_bytes(position))) for position in (4, 2, 4, 7)]
    command = RecordInferences(tuple(found[0] for found in batches if found))
    async with leading() as writer:
        answer = await writer.execute(command)

        (event,) = answer.events  # type: ignore[union-attr]
        assert isinstance(event, InferencesRecorded)
        assert [batch.position for batch in event.batches] == [4, 7]

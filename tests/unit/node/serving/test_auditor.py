"""From what was noted to batches in the broker's stream: numbers, bounds, what is left behind and what comes after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hivefold.bus.memory import MemoryBroker, MemoryConnection
from hivefold.clock import SystemClock
from hivefold.entropy import SeededEntropy
from hivefold.errors import Reason
from hivefold.oip import limits
from hivefold.oip.digests import DIGEST_BYTES, TensorDigester
from hivefold.oip.responses import OutputTensor
from hivefold.oip.tensors import WireTensor
from hivefold.v1 import audit_pb2, error_pb2
from node.serving import audit_sheet, audit_spool, auditor
from node.serving.audit import Audited, Ledger, Noted
from node.serving.audit_spool import Spool
from node.serving.auditor import Auditor

FULL = Audited("m@1", "a" * 64, full=True)
PLAIN = Audited("w@2", "b" * 64, full=False)
INPUT = WireTensor("x", "FP32", (1, 1), b"abcd")
OUTPUT = OutputTensor((1,), b"ef")


@dataclass
class Running:
    """An auditor at work, and the server that it sends to."""

    auditor: Auditor
    broker: MemoryBroker
    connection: MemoryConnection

    @property
    def ledger(self) -> Ledger:
        return self.auditor.ledger

    def stored(self) -> list[audit_pb2.InferenceBatch]:
        return [audit_pb2.InferenceBatch.FromString(found.data) for found in self.broker.results.values()]

    def subjects(self) -> list[str]:
        return [found.subject for found in self.broker.results.values()]


@asynccontextmanager
async def auditing(folder: Path, boot: str = "boot-b", *, online: bool = True) -> AsyncIterator[Running]:
    """Closed at the end: what was noted is in batches then, and where the server is there, with it."""
    broker = MemoryBroker()
    connection = broker.connect()
    if not online:
        connection.disconnect()
    made = Auditor("n1", boot, Ledger(0), Spool(folder), connection.result_sender(), SystemClock(), SeededEntropy(1))
    running = asyncio.create_task(made.run())
    await asyncio.sleep(0)
    try:
        yield Running(made, broker, connection)
    finally:
        running.cancel()
        await asyncio.wait((running,))
        await made.close()


def request(caller: str = "c", reason: Reason | None = None, model: Audited = FULL) -> Noted:
    if reason is not None:
        return Noted(model, 5_000, 7, caller, reason, (INPUT,), (), ())
    return Noted(model, 5_000, 7, caller, None, (INPUT,), (("y", "UINT8"),), (OUTPUT,))


def note(ledger: Ledger, *requests: Noted) -> None:
    for each in requests:
        if each.reason is None:
            ledger.succeeded(each.audited, 1, each.took_us * 1000)
        else:
            ledger.failed(each.audited, each.reason)
        if each.audited.full:
            ledger.note(each)


async def test_a_batch_holds_windows_and_the_digests_of_requests(tmp_path: Path) -> None:
    """Columns that belong together, under a salt of their own."""
    async with auditing(tmp_path) as node:
        note(node.ledger, request(), request("d", Reason.RUNTIME_FAILED), request(model=PLAIN))
        running = node

    (batch,) = running.stored()
    assert running.subjects() == ["inference.n1.boot-b.1"]
    assert (batch.node_id, batch.boot_id, batch.number) == ("n1", "boot-b", 1)
    assert [(w.model, w.full, w.request_count) for w in batch.windows] == [("m@1", True, 2), ("w@2", False, 1)]
    columns = batch.requests
    digester = TensorDigester(columns.salt)
    assert (list(columns.models), list(columns.callers)) == (["m@1"], ["c", "d"])
    assert list(columns.model_digests) == ["a" * 64]
    assert (list(columns.time_steps_us), list(columns.durations_us)) == ([5_000, 0], [7, 7])
    assert (list(columns.model_indexes), list(columns.caller_indexes)) == ([0, 0], [0, 1])
    assert list(columns.reasons) == [error_pb2.REASON_UNSPECIFIED, error_pb2.REASON_RUNTIME_FAILED]
    assert columns.input_digests == 2 * digester.digest([INPUT])
    assert columns.output_digests == digester.digest([WireTensor("y", "UINT8", *OUTPUT)]) + bytes(DIGEST_BYTES)
    assert list(tmp_path.iterdir()) == []


async def test_nothing_noted_is_no_batch(tmp_path: Path) -> None:
    """An idle node stores nothing."""
    async with auditing(tmp_path) as node:
        running = node

    assert running.stored() == []


async def test_batches_are_cut_and_counted_without_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By requests, by callers, by windows: none is lost, and none is there twice."""
    monkeypatch.setattr(audit_sheet, "AUDIT_BATCH_REQUESTS", 3)
    monkeypatch.setattr(auditor, "AUDIT_BATCH_WINDOWS", 2)
    async with auditing(tmp_path) as node:
        note(node.ledger, *[request(str(number)) for number in range(7)])
        for number in range(5):
            node.ledger.ran(PLAIN._replace(model=f"w@{number + 3}"), 1)
        running = node

    batches = running.stored()
    assert [batch.number for batch in batches] == list(range(1, len(batches) + 1))
    assert sum(len(batch.requests.durations_us) for batch in batches) == 7
    assert sum(window.request_count for batch in batches for window in batch.windows) == 7
    assert sorted(window.model for batch in batches for window in batch.windows) == [
        "m@1", "w@3", "w@4", "w@5", "w@6", "w@7",
    ]  # fmt: skip


async def test_without_a_broker_batches_wait_on_disk_and_the_next_boot_sends_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are, before its own, and each once."""
    monkeypatch.setattr(auditor, "AUDIT_CLOSE_S", 0.0)
    async with auditing(tmp_path, "boot-a", online=False) as node:
        note(node.ledger, request())
    assert [path.name for path in tmp_path.iterdir()] == ["boot-a.000000000001"]

    (tmp_path / "boot-a.000000000002.partial").write_bytes(b"cut")
    async with auditing(tmp_path, "boot-b") as later:
        note(later.ledger, request())
        while len(later.broker.results) < 1:
            await later.broker.changes.next()
        monkeypatch.setattr(auditor, "AUDIT_CLOSE_S", 5.0)
        running = later

    assert running.subjects() == ["inference.n1.boot-a.1", "inference.n1.boot-b.1"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("trouble", ["full", "failing"])
async def test_without_room_windows_grow_and_requests_are_counted_as_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """Nothing is left out in silence: the counts are whole, and say how many requests are nowhere."""
    folder = tmp_path / "spool"
    async with auditing(folder) as node:
        if trouble == "full":
            monkeypatch.setattr(audit_spool, "AUDIT_SPOOL_BYTES", 0)
        else:
            folder.rmdir()
        note(node.ledger, *[request() for _ in range(limits.AUDIT_DIGEST_AT)], request("d", Reason.CANCELLED))
        await node.auditor._digest()
        await node.auditor._seal()
        assert node.stored() == []
        note(node.ledger, request("e"))
        monkeypatch.undo()
        folder.mkdir(exist_ok=True)
        running = node

    (batch,) = running.stored()
    (window,) = batch.windows
    lost = window.unrecorded_count
    assert (batch.number, window.request_count) == (1, limits.AUDIT_DIGEST_AT + 2)
    assert limits.AUDIT_DIGEST_AT + 1 <= lost <= limits.AUDIT_DIGEST_AT + 2
    assert lost + len(batch.requests.durations_us) == window.request_count


async def test_a_batch_that_the_disk_lost_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """Its number is missing: that shows."""
    spool = Spool(tmp_path)
    for number in (1, 2):
        spool.write("boot-a", number, audit_pb2.InferenceBatch(number=number).SerializeToString())
    names: Sequence[str] = [path.name for path in tmp_path.iterdir()]
    assert len(names) == 2
    broker = MemoryBroker()
    made = Auditor(
        "n1", "boot-b", Ledger(0), Spool(tmp_path), broker.connect().result_sender(), SystemClock(), SeededEntropy(1)
    )
    (tmp_path / "boot-a.000000000001").unlink()
    running = asyncio.create_task(made.run())
    while not broker.results:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait((running,))
    await made.close()

    assert [found.subject for found in broker.results.values()] == ["inference.n1.boot-a.2"]

"""Batches of inference as nodes store them, and a writer that records them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from coordinator.replay import NOTHING
from coordinator.writer import Writer
from hivefold.clock import ManualClock
from hivefold.entropy import SeededEntropy
from hivefold.log.memory import MemoryEventLog
from hivefold.v1 import audit_pb2, error_pb2


@asynccontextmanager
async def leading(log: MemoryEventLog | None = None) -> AsyncIterator[Writer]:
    """A writer that leads on an empty log."""
    writer = Writer(log or MemoryEventLog(), ManualClock(), SeededEntropy(1), NOTHING)
    await writer.begin("test", "0")
    running = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        running.cancel()
        await asyncio.wait((running,))


def batch_bytes(
    number: int,
    *,
    node: str = "n1",
    boot: str = "boot-1",
    model: str = "m@1",
    requests: int = 0,
    start_us: int = 1_000_000,
) -> bytes:
    """One window of `requests` requests (one, where none is kept by itself), and those requests."""
    batch = audit_pb2.InferenceBatch(node_id=node, boot_id=boot, number=number)
    window = batch.windows.add(model=model, model_digest="a" * 64, span_us=1_000_000, request_count=requests or 1)
    window.start_time.FromMicroseconds(start_us)
    window.durations.bucket_steps.append(100)
    window.durations.counts.append(window.request_count)
    if requests:
        window.full = True
        columns = batch.requests
        columns.salt = bytes(32)
        columns.models.append(model)
        columns.model_digests.append("a" * 64)
        columns.callers.append("somebody")
        for index in range(requests):
            columns.time_steps_us.append(start_us if not index else 1)
            columns.durations_us.append(50)
            columns.model_indexes.append(0)
            columns.caller_indexes.append(0)
            columns.reasons.append(error_pb2.REASON_UNSPECIFIED)
        columns.input_digests = b"\1" * 32 * requests
        columns.output_digests = b"\2" * 32 * requests
    return batch.SerializeToString()


def subject_of(number: int, node: str = "n1", boot: str = "boot-1") -> str:
    """Where a batch is stored."""
    return f"inference.{node}.{boot}.{number}"

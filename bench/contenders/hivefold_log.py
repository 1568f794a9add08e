"""hivefold's log on its own: filled with decisions, replayed cold, appended to in batches of one size."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import accumulate
from typing import Any, Final

import uvloop

from bench.contenders.history import History
from bench.contenders.protocol import Verb, serve
from coordinator.replay import collector_paused, replay
from coordinator.snapshots import write_snapshot
from hivefold.broker import BrokerSettings, Secret
from hivefold.bus.connection import connect
from hivefold.entropy import SystemEntropy
from hivefold.limits import (
    APPEND_BATCH_BYTES,
    APPEND_BATCH_RECORDS,
    SNAPSHOT_LEADER_PATIENCE,
    SNAPSHOT_LOG_BYTES,
    SNAPSHOT_RECORDS,
)
from hivefold.log.jetstream import JetStreamEventLog, open_log
from hivefold.log.port import Entry
from hivefold.log.snapshots import open_snapshots
from hivefold.memory import peak_resident_bytes

_RECORD_BYTES: Final = 200
_SPARE_RECORDS: Final = 100
"""What coordinators append that are started over the log meanwhile."""


async def _fill(
    url: str, user: str, password: str, *, transitions: int, job_tasks: int, at_once: int
) -> dict[str, Any]:
    """Appends the decisions of a busy fleet until they hold so many task transitions."""
    log = await open_bench_log(url, user, password)
    records = decided = batch_bytes = 0
    batch: list[Entry] = []

    async def flush() -> None:
        nonlocal records, batch_bytes
        if batch:
            await log.append(batch, expected_sequence=records, term_sequence=min(records, 1))
            records += len(batch)
            batch.clear()
            batch_bytes = 0

    history = History(SystemEntropy(), job_tasks=job_tasks, at_once=at_once)
    with collector_paused():
        for entry, count in history.entries(transitions):
            if len(batch) >= APPEND_BATCH_RECORDS or batch_bytes + len(entry.data) > APPEND_BATCH_BYTES:
                await flush()
            batch.append(entry)
            batch_bytes += len(entry.data)
            decided += count
            if not records:  # the term's record goes alone: it is the fence of all others
                await flush()
    await flush()
    await log.close()
    return {"records": records, "transitions": decided}


async def _replay(url: str, user: str, password: str) -> dict[str, Any]:
    """From opening the connection to the digest of the state."""
    began = time.perf_counter()
    log = await open_bench_log(url, user, password)
    head = await log.head()
    opened = time.perf_counter()
    replayed = await replay(log, up_to=head.sequence)
    folded = time.perf_counter()
    digest = replayed.digest()
    seconds = time.perf_counter() - began
    await log.close()
    return {
        "seconds": seconds,
        "open_s": opened - began,
        "fold_s": folded - opened,
        "records": head.sequence,
        "digest": digest,
        "peak_bytes": peak_resident_bytes(),
    }


async def _snapshot(url: str, user: str, password: str) -> dict[str, Any]:
    """Writes a snapshot that is as old as one can be: a record or two later a leader would write the next."""
    link = await connect(BrokerSettings((url,), user=user, password=Secret(password)))
    log, store = await open_log(link), await open_snapshots(link)
    head = (await log.head()).sequence
    folded = await replay(log, up_to=head - await _longest_suffix(log, head))
    await write_snapshot(store, folded, SystemEntropy().draw(12).hex())
    await log.close()
    return {"suffix": head - folded.state.sequence}


async def _longest_suffix(log: JetStreamEventLog, head: int) -> int:
    """How many of the last records a leader leaves without a snapshot, by their number and their bytes."""
    records = SNAPSHOT_LEADER_PATIENCE * SNAPSHOT_RECORDS - _SPARE_RECORDS
    room = SNAPSHOT_LEADER_PATIENCE * SNAPSHOT_LOG_BYTES - _SPARE_RECORDS * _RECORD_BYTES
    sizes = [len(stored.data) async for page in log.read(after=max(0, head - records), up_to=head) for stored in page]
    return sum(1 for total in accumulate(reversed(sizes)) if total < room)


async def _append(url: str, user: str, password: str, *, batches: int, size: int) -> dict[str, Any]:
    """Appends opaque records of 200 bytes, `size` at once."""
    log = await open_bench_log(url, user, password)
    head = await log.head()
    entropy, sequence, term = SystemEntropy(), head.sequence, head.term_sequence
    prepared = [
        [Entry("log.bench", entropy.draw(16) + bytes(_RECORD_BYTES - 16)) for _ in range(size)] for _ in range(batches)
    ]
    times = []
    for batch in prepared:
        began = time.perf_counter()
        await log.append(batch, expected_sequence=sequence, term_sequence=term)
        times.append(time.perf_counter() - began)
        sequence += size
    await log.close()
    return {"seconds": sum(times), "ms": [1000 * each for each in times]}


async def open_bench_log(url: str, user: str, password: str) -> JetStreamEventLog:
    """The log on a broker that the bench started."""
    return await open_log(await connect(BrokerSettings((url,), user=user, password=Secret(password))))


def _verb(measure: Callable[..., Awaitable[dict[str, Any]]]) -> Verb:
    async def run(arguments: dict[str, Any]) -> dict[str, Any]:
        return await measure(**arguments)

    def verb(**arguments: Any) -> dict[str, Any]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run(arguments))

    return verb


if __name__ == "__main__":
    serve({"fill": _verb(_fill), "replay": _verb(_replay), "snapshot": _verb(_snapshot), "append": _verb(_append)})

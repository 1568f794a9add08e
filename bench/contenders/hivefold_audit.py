"""hivefold's log files: exported from the broker, then read in full, replayed, explained and rechecked, each cold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from bench.contenders.hivefold_log import open_bench_log
from bench.contenders.protocol import Verb, serve
from coordinator.audit.explain import explain
from coordinator.audit.recheck import recheck
from coordinator.audit.subjects import parse_subject
from coordinator.replay import replay
from hivefold.log.chain import record_hash
from hivefold.log.file import LogFileReader
from hivefold.log.file_writer import LogFileStart, LogFileWriter
from hivefold.memory import peak_resident_bytes


async def _export(path: str, url: str, user: str, password: str) -> int:
    log = await open_bench_log(url, user, password)
    head = await log.head()
    first = (await anext(log.read(after=0, up_to=1)))[0]
    start = LogFileStart(record_hash(1, first.subject, first.data))
    with LogFileWriter(Path(path), start, replace=True) as writer:
        async for page in log.read(after=0, up_to=head.sequence):
            writer.records(page)
    await log.close()
    return head.sequence


async def _read(path: str) -> int:
    with LogFileReader(Path(path)) as reader:
        return sum(1 for _ in reader.entries()) - 1


async def _replay(path: str) -> int:
    with LogFileReader(Path(path)) as reader:
        replayed = await replay(reader, up_to=(await reader.head()).sequence)
        replayed.digest()
        return replayed.state.sequence


async def _explain(path: str, subject: str) -> int:
    with LogFileReader(Path(path)) as reader:
        last = (await reader.head()).sequence
        story = await explain(reader, parse_subject(subject), up_to=last, limit=200)
        assert story.lines
        return last


async def _recheck(path: str) -> int:
    with LogFileReader(Path(path)) as reader:
        found = await recheck(reader, up_to=(await reader.head()).sequence, limit=1)
        assert not found.difference_count
        return found.records


def _verb(measure: Callable[..., Awaitable[int]]) -> Verb:
    async def run(arguments: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        records = await measure(**arguments)
        seconds = time.perf_counter() - began
        return {"records": records, "seconds": seconds, "peak_bytes": peak_resident_bytes()}

    def verb(**arguments: Any) -> dict[str, Any]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run(arguments))

    return verb


if __name__ == "__main__":
    serve(
        {
            "export": _verb(_export),
            "read": _verb(_read),
            "replay": _verb(_replay),
            "explain": _verb(_explain),
            "recheck": _verb(_recheck),
        }
    )

"""hivefold: probe jobs on a fleet of three node processes, as its client sees them. Every decision is on disk."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.contenders.protocol import serve
from bench.fleet import fleet
from hivefold.client import Fleet, connect
from hivefold.v1 import job_pb2

_NODES = 3


async def _probe(client: Fleet, task_count: int) -> float:
    """Seconds from submit until the client sees the job's end."""
    began = time.perf_counter()
    job = await client.jobs.run_probe(task_count)
    seconds = time.perf_counter() - began
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED, f"the probe job ended {job_pb2.JobState.Name(job.state)}"
    assert job.progress.tasks_succeeded == task_count, "every task is done once"
    return seconds


async def _round_trips(client: Fleet, count: int) -> list[float]:
    return [1000 * await _probe(client, 1) for _ in range(count)]


async def _nodes_joined(client: Fleet) -> None:
    async with asyncio.timeout(30):
        while len([node async for node in client.nodes.list()]) < _NODES:
            await asyncio.sleep(0.05)


def main() -> None:
    directory = Path(tempfile.mkdtemp(prefix="fleet-", dir=sys.argv[1]))
    with fleet(directory, nodes=_NODES, threads=1) as started, asyncio.Runner() as runner:
        opening = connect(started.coordinator)
        client = runner.run(opening.__aenter__())
        runner.run(_nodes_joined(client))

        def tasks(count: int) -> dict[str, Any]:
            return {"seconds": runner.run(_probe(client, count))}

        def round_trips(count: int) -> dict[str, Any]:
            return {"ms": runner.run(_round_trips(client, count))}

        serve({"tasks": tasks, "round_trips": round_trips})
        runner.run(opening.__aexit__(None, None, None))


if __name__ == "__main__":
    main()

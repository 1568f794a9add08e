"""hivefold: batch inference on a fleet with one node a core, from submit to the finished output file.

The client does what `hivefold job submit infer` does, in a process that is started once.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.contenders.protocol import serve
from bench.fleet import fleet
from hivefold.client import Fleet, InferOptions, connect
from hivefold.memory import keep_freed_memory
from hivefold.v1 import job_pb2


async def _infer(
    client: Fleet, model: str, rows_file: str, output_file: str, *, by_reference: bool
) -> tuple[dict[str, float], job_pb2.Job]:
    """Seconds of the parts and in all, and the job."""
    began = time.perf_counter()
    infer = InferOptions(by_reference=by_reference)
    job = await client.jobs.submit_infer(model, Path(rows_file), infer=infer)
    submitted = time.perf_counter()
    async for event in client.jobs.watch(job.job_id, after_sequence=job.sequence):
        job = event.job
    ended = time.perf_counter()
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED, f"the job ended: {job.failure.message}"
    await client.jobs.download_output(job.job_id, output_file)
    done = time.perf_counter()
    parts = {"submit_s": submitted - began, "compute_s": ended - submitted, "download_s": done - ended}
    return {"seconds": done - began, **parts}, job


async def _add(client: Fleet, file: str, name: str, warm_rows: str, output_file: str) -> None:
    """Registers a model and runs a few rows through every node, so that all have it loaded."""
    await client.models.add(file, name)
    for _ in range(2):
        await _infer(client, name, warm_rows, output_file, by_reference=False)


def main() -> None:
    keep_freed_memory()
    directory, nodes = Path(tempfile.mkdtemp(prefix="fleet-", dir=sys.argv[1])), int(sys.argv[2])
    with fleet(directory, nodes=nodes, threads=1) as started, asyncio.Runner() as runner:
        opening = connect(started.coordinator)
        client = runner.run(opening.__aenter__())

        def add(file: str, name: str, warm_rows: str, output_file: str) -> dict[str, Any]:
            runner.run(_add(client, file, name, warm_rows, output_file))
            return {}

        def infer(model: str, rows_file: str, output_file: str, by_reference: bool) -> dict[str, Any]:
            times, job = runner.run(_infer(client, model, rows_file, output_file, by_reference=by_reference))
            return {**times, "rows": job.progress.rows_done, "tasks": job.progress.tasks_succeeded}

        serve({"add": add, "infer": infer})
        runner.run(opening.__aexit__(None, None, None))


if __name__ == "__main__":
    main()

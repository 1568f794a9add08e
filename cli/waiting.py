"""Waiting for a job and fetching its output, with progress on a terminal."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from cli.exits import Exit
from cli.output import note
from cli.progress import Bar
from cli.views import jobs
from hivefold.v1 import job_pb2

if TYPE_CHECKING:
    from hivefold.client import Fleet


def exit_for(job: job_pb2.Job) -> Exit:
    """The exit code of a command that waited for `job` to end."""
    return Exit.OK if job.state == job_pb2.JOB_STATE_SUCCEEDED else Exit.JOB_UNSUCCESSFUL


async def wait_for(fleet: Fleet, job_id: str) -> job_pb2.Job:
    """The job once it has ended. Ctrl-C ends the waiting alone, and the person is told so."""
    job = await fleet.jobs.get(job_id)
    if job.state in jobs.FINAL:
        return job
    try:
        with Bar(job_id, jobs.unit(job)) as bar:
            return await fleet.jobs.wait(job, lambda changed: _told(bar, changed))
    except asyncio.CancelledError:
        note(f"job {job_id} goes on; see its end with: hivefold job wait {job_id}")
        raise


async def save_output(fleet: Fleet, job_id: str, path: Path) -> int:
    """Writes the job's output to `path`; its size in bytes."""
    with Bar(path.name, "bytes") as bar:
        return await fleet.jobs.download_output(job_id, path, lambda done, total: bar.update(done, total or None))


def _told(bar: Bar, job: job_pb2.Job) -> None:
    progress = job.progress
    trouble = [
        f"{number} {what}"
        for number, what in ((progress.attempts_failed, "failed"), (progress.attempts_lost, "lost"))
        if number
    ]
    bar.update(progress.rows_done, progress.rows_total or None, extra=", ".join(trouble))

"""Waiting for a job at the command line."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli.submit import follow
from cli.waiting import wait_for
from hivefold.errors import ConflictError
from hivefold.v1 import job_pb2


class _Endless:
    """Jobs that never end."""

    def __init__(self) -> None:
        self.waited_for = asyncio.Event()

    async def get(self, job_id: str) -> job_pb2.Job:
        return job_pb2.Job(job_id=job_id, state=job_pb2.JOB_STATE_RUNNING)

    async def wait(self, _job: job_pb2.Job, _on_progress: Any) -> job_pb2.Job:
        self.waited_for.set()
        await asyncio.Event().wait()
        raise AssertionError


async def test_who_stops_waiting_is_told_that_the_job_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends the waiting alone, and says how to go on; nothing goes to standard output."""
    jobs = _Endless()
    fleet: Any = SimpleNamespace(jobs=jobs)
    waiting = asyncio.create_task(wait_for(fleet, "j-1"))
    await jobs.waited_for.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    out, err = capsys.readouterr()
    assert (out, err) == ("", "job j-1 goes on; see its end with: hivefold job wait j-1\n")


class _Unwritable(_Endless):
    """A job that has succeeded, and whose output does not fit the file."""

    async def get(self, job_id: str) -> job_pb2.Job:
        return job_pb2.Job(job_id=job_id, state=job_pb2.JOB_STATE_SUCCEEDED)

    async def download_output(self, _job_id: str, _path: Path, _on_progress: Any) -> int:
        raise ConflictError("a .npy file holds one tensor")


async def test_an_output_that_cannot_be_saved_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    """The job need not run again: it says how to fetch what it made."""
    fleet: Any = SimpleNamespace(jobs=_Unwritable())
    with pytest.raises(ConflictError):
        await follow(fleet, job_pb2.Job(job_id="j-1"), wait=True, file=Path("out.npy"))

    assert "hivefold job output j-1 FILE" in capsys.readouterr().err

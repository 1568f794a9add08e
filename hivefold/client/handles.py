"""A job in the hand of who submitted it: how far it is, its end, its output."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hivefold.client import sending
from hivefold.client.jobs import Jobs
from hivefold.client.messages import enum_name
from hivefold.errors import JobFailedError, Reason, UnavailableError
from hivefold.v1 import error_pb2, job_pb2

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ENDED: Final = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is: rows of infer, tasks of a probe."""

    state: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or CANCELLED."""
    done: int
    total: int
    repeated: int
    """Attempts that failed or were lost with their node."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in _ENDED

    @property
    def fraction(self) -> float:
        """From 0.0 to 1.0."""
        return self.done / self.total if self.total else 0.0


class JobHandle:
    """A job that was submitted. It goes on whatever becomes of the handle: `fleet.job(job_id)` gives another one."""

    def __init__(self, jobs: Jobs, job: job_pb2.Job) -> None:
        self._jobs = jobs
        self._job = job

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self._job.job_id

    @property
    def message(self) -> job_pb2.Job:
        """All that was last heard of the job."""
        return self._job

    async def progress(self) -> Progress:
        """How far the job is now."""
        self._job = await self._jobs.get(self.job_id)
        return _progress(self._job)

    async def watch(self) -> AsyncIterator[Progress]:
        """How far the job was last, and after each change, until it has ended; goes on by itself after a cut."""
        told = _progress(self._job)
        yield told
        if told.ended:
            return
        async for event in self._jobs.watch(self.job_id, self._job.sequence):
            self._job = event.job
            before, told = told, _progress(self._job)
            if told != before:
                yield told

    async def wait(
        self, *, timeout_s: float | None = None, on_progress: Callable[[Progress], None] | None = None
    ) -> Progress:
        """Waits until the job has succeeded. `on_progress` is called as `watch` yields.

        Raises JobFailedError where the job ended otherwise, UnavailableError after `timeout_s`: it goes on then.
        """
        told = _progress(self._job)
        try:
            async with asyncio.timeout(timeout_s):
                async for told in self.watch():
                    if on_progress is not None:
                        on_progress(told)
        except TimeoutError:
            raise UnavailableError(
                f"job {self.job_id} has not ended within {timeout_s} s; it goes on: wait again, or cancel it",
                reason=Reason.DEADLINE_EXCEEDED,
                metadata={"job": self.job_id},
            ) from None
        if told.state != "SUCCEEDED":
            raise _failure(self._job)
        return told

    async def outputs(self, *, on_progress: sending.Progress | None = None) -> dict[str, NDArray[Any]]:
        """The output as arrays by the tensors' names, rows in input order, once the job has succeeded.

        `on_progress` gets the bytes that came and the bytes in all. Raises JobFailedError.
        """
        await self.wait()
        return await self._jobs.outputs(self.job_id, on_progress)

    async def save(self, path: Path | str, *, on_progress: sending.Progress | None = None) -> int:
        """Writes the output to a .npz, .npy or .csv file once the job has succeeded; gives its size in bytes.

        `on_progress` as for `outputs`. Raises JobFailedError.
        """
        await self.wait()
        return await self._jobs.download_output(self.job_id, path, on_progress)

    async def cancel(self, note: str = "") -> Progress:
        """Cancels the job. Raises ConflictError when it has ended otherwise."""
        self._job = await self._jobs.cancel(self.job_id, note)
        return _progress(self._job)

    async def erase(self) -> Progress:
        """Erases the data of the job, once it has ended: they can never be read again. Raises ConflictError."""
        self._job = await self._jobs.erase(self.job_id)
        return _progress(self._job)


def _progress(job: job_pb2.Job) -> Progress:
    counted = job.progress
    state = enum_name(job_pb2.JobState, job.state).removeprefix("JOB_STATE_")
    return Progress(state, counted.rows_done, counted.rows_total, counted.attempts_failed + counted.attempts_lost)


def _failure(job: job_pb2.Job) -> JobFailedError:
    name = enum_name(error_pb2.Reason, job.failure.reason).removeprefix("REASON_")
    return JobFailedError(
        f"job {job.job_id} did not succeed: {job.failure.message}",
        reason=Reason(name) if name in Reason.__members__ else Reason.UNSPECIFIED,
        metadata={"job": job.job_id, **job.failure.metadata},
    )

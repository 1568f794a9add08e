"""Tells those who wait for a job's end, and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from coordinator.core.events import JobCancelled, JobFailed, JobSucceeded
from coordinator.core.model import Job
from coordinator.followers import Committed
from hivefold.ids import JobId


class Endings:
    """The jobs whose end is waited for. Bounded by the calls that a server takes at once."""

    def __init__(self) -> None:
        self._waiting: dict[JobId, set[asyncio.Future[Job | None]]] = {}

    async def wait(self, job_id: JobId, within_s: float) -> Job | None:
        """The job as it ended; None when it has not within `within_s` seconds, or before the writer stopped."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Job | None] = loop.create_future()
        self._waiting.setdefault(job_id, set()).add(waiting)
        timer = loop.call_later(within_s, _tell, waiting, None)
        try:
            return await waiting
        finally:
            timer.cancel()
            self._forget(job_id, waiting)

    def offer(self, commits: Sequence[Committed]) -> None:
        """Looks through what was committed for ends that are waited for; called by the writer."""
        if not self._waiting:
            return
        for committed in commits:
            for event in committed.events:
                match event:
                    case JobSucceeded(job_id) | JobFailed(job_id) | JobCancelled(job_id):
                        for waiting in self._waiting.get(job_id, ()):
                            _tell(waiting, committed.state.jobs[job_id])
                    case _:
                        pass

    def end(self) -> None:
        """No more commits will come: the writer has stopped."""
        for waiters in self._waiting.values():
            for waiting in waiters:
                _tell(waiting, None)

    def _forget(self, job_id: JobId, waiting: asyncio.Future[Job | None]) -> None:
        waiters = self._waiting[job_id]
        waiters.discard(waiting)
        if not waiters:
            del self._waiting[job_id]


def _tell(waiting: asyncio.Future[Job | None], job: Job | None) -> None:
    if not waiting.done():
        waiting.set_result(job)

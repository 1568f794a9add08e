"""Clients that submit jobs and remember what they were told."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Final

from hivefold.client import Fleet, JobOptions
from hivefold.errors import UnavailableError
from hivefold.v1 import job_pb2

_OPEN: Final = 12
"""Jobs under way at once."""
_REPEATED: Final = 0.3
"""How many of the requests are sent a second time."""
FINAL: Final = {job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED}


class Load:
    """Submits probe jobs, some of their requests twice; `acknowledged` is what the fleet promised to do."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self._fleet = fleet
        self._random = random.Random(seed)
        self._asked = 0
        self.acknowledged: dict[str, int] = {}
        """Job id to the number of its tasks."""
        self.twice: list[str] = []
        """Requests whose repeat led to another job: there must be none."""
        self.ended: Counter[str] = Counter()
        self._open: set[str] = set()

    async def run(self) -> None:
        """Submits until it is cancelled."""
        while True:
            try:
                if len(self._open) < _OPEN:
                    await self._submit()
                else:
                    await self._look()
                    await asyncio.sleep(0.05)
            except UnavailableError:
                await asyncio.sleep(0.1)

    async def settle(self, within_s: float) -> set[str]:
        """Waits until every acknowledged job has ended; those that have not."""
        try:
            async with asyncio.timeout(within_s):
                while self._open:
                    try:
                        await self._look()
                    except UnavailableError:
                        await asyncio.sleep(0.2)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pass
        return set(self._open)

    async def _submit(self) -> None:
        self._asked += 1
        request, tasks = f"soak-{self._asked}", self._random.choice((1, 1, 2, 5, 20, 100))
        pause_s = self._random.choice((0.0, 0.0, 0.02))
        first = await self._ask(request, tasks, pause_s)
        if self._random.random() < _REPEATED:
            second = await self._ask(request, tasks, pause_s)
            if second != first:
                self.twice.append(f"{request}: {first}, then {second}")

    async def _ask(self, request: str, tasks: int, pause_s: float) -> str:
        """Sends one request until it is answered, as a client does while servers come back."""
        while True:
            try:
                job = await self._fleet.jobs.submit_probe(
                    tasks, task_duration_s=pause_s, options=JobOptions(request_id=request, max_attempts=20)
                )
            except UnavailableError:
                await asyncio.sleep(0.1)
                continue
            self.acknowledged[job.job_id] = tasks
            self._open.add(job.job_id)
            return job.job_id

    async def _look(self) -> None:
        for job_id in tuple(self._open):
            job = await self._fleet.jobs.get(job_id)
            if job.state in FINAL:
                self._open.discard(job_id)
                self.ended[job_pb2.JobState.Name(job.state)] += 1

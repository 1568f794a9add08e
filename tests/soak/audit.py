"""The auditor: an independent fold of the log, compared with the live state again and again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Final

from coordinator.core.events import JobCancelled, JobFailed, JobSubmitted, JobSucceeded, TasksSucceeded
from coordinator.core.invariants import violations
from coordinator.replay import Replayer
from hivefold.client import Fleet
from hivefold.errors import UnavailableError
from hivefold.log.port import Stored

_INVARIANTS_EACH: Final = 100
"""Records between two looks at every invariant: one look takes time linear in the state."""


class Auditor:
    """Reads on from where it was, checks the chain and the invariants, and keeps count of every end."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._replayer = Replayer()
        self.sequence = 0
        self.comparisons = 0
        self.stale = 0
        """Answers of coordinators that were behind what had been read."""
        self.faults: list[str] = []
        self.terms: set[int] = set()
        self._requests: Counter[str] = Counter()
        self._jobs: set[str] = set()
        self._successes: Counter[tuple[str, int]] = Counter()
        self._ends: Counter[str] = Counter()

    async def compare(self) -> None:
        """Reads to the head and compares the digests. While nobody answers, tries again within a bound."""
        async with asyncio.timeout(120):
            while True:
                try:
                    await self._compare()
                except UnavailableError:
                    await asyncio.sleep(0.2)
                else:
                    return

    async def _compare(self) -> None:
        head = await self._fleet.log.head(with_state_digest=True)
        if head.sequence < self.sequence:
            # A standby that lags; a leader that had lost records could not link the next one to what was read.
            self.stale += 1
            return
        async for record in self._fleet.log.read(after=self.sequence, up_to=head.sequence):
            self._take(Stored(record.sequence, record.subject, record.data))
        if self.sequence == head.sequence:
            self.comparisons += 1
            if self._replayer.result().digest() != head.state_digest:
                self.faults.append(f"replay and live state differ at record {head.sequence}")

    def _take(self, stored: Stored) -> None:
        record, state = self._replayer.step(stored)
        self.sequence = record.sequence
        self.terms.add(record.term)
        if record.sequence % _INVARIANTS_EACH == 0:
            self.faults.extend(f"record {record.sequence}: {fault}" for fault in violations(state)[:1])
        for event in record.events:
            match event:
                case JobSubmitted():
                    self._requests[event.request_id] += 1
                    self._jobs.add(event.job_id)
                case TasksSucceeded():
                    self._successes.update((event.job_id, task) for task in event.tasks)
                case JobSucceeded() | JobFailed() | JobCancelled():
                    self._ends[event.job_id] += 1
                case _:
                    pass

    def verdict(self, acknowledged: Mapping[str, int]) -> list[str]:
        """Everything that is not as promised."""
        faults = list(self.faults)
        faults += [f"request {name} became {count} jobs" for name, count in self._requests.items() if count > 1]
        faults += [f"acknowledged job {job} is not in the log" for job in acknowledged if job not in self._jobs]
        faults += [f"task {task} succeeded {count} times" for task, count in self._successes.items() if count > 1]
        faults += [f"job {job} ended {count} times" for job, count in self._ends.items() if count > 1]
        for job, tasks in acknowledged.items():
            done = sum((job, task) in self._successes for task in range(tasks))
            if done < tasks:
                faults.append(f"job {job}: {done} of {tasks} tasks succeeded")
        return faults

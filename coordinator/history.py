"""The past, read from the log: records folded in passing, and jobs that the state no longer has."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from heapq import heappop, heappush

from coordinator.core.events import JobCancelled, JobFailed, JobSucceeded
from coordinator.core.model import Job, State
from coordinator.core.retire import tasks_held
from coordinator.derive import Decided, Folded, Scope, fold
from coordinator.wire.records import decode_record, job_subject, record_hash
from hivefold import limits
from hivefold.errors import LimitExceededError, LogCorruptError, NotFoundError, Reason, UnavailableError
from hivefold.ids import JobId
from hivefold.log.port import EventLog, ReadableLog


class PastJobs:
    """Jobs that ended long ago. Few are read at once, one by one each, in bounded time; the last read are kept."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._slots = asyncio.Semaphore(limits.HISTORY_READS)
        self._reading: dict[JobId, asyncio.Task[Job]] = {}
        self._kept: OrderedDict[JobId, Job] = OrderedDict()
        self._tasks_kept = 0

    async def find(self, job_id: JobId, state: State) -> Job:
        """A job as the log has it at `state`, which no longer holds it.

        Raises NotFoundError (JOB_NOT_FOUND), LimitExceededError when too many are asked for,
        UnavailableError when reading takes too long, LogCorruptError, BrokerUnavailableError.
        """
        kept = self._kept.get(job_id)
        if kept is not None:
            self._kept.move_to_end(job_id)
            return kept
        reading = self._reading.get(job_id)
        if reading is None:
            reading = self._begin(job_id, state)
        # Others may wait for the same job: it is read to its end whoever gives up.
        return await asyncio.shield(reading)

    def _begin(self, job_id: JobId, state: State) -> asyncio.Task[Job]:
        if len(self._reading) >= limits.HISTORY_WAITING:
            raise LimitExceededError(
                f"{limits.HISTORY_WAITING} ended jobs are being read from the log; try again in a moment",
                metadata={"limit": str(limits.HISTORY_WAITING)},
            )
        reading = self._reading[job_id] = asyncio.create_task(self._read(job_id, state))
        reading.add_done_callback(lambda _: self._reading.pop(job_id))
        return reading

    async def _read(self, job_id: JobId, state: State) -> Job:
        try:
            async with asyncio.timeout(limits.HISTORY_READ_S), self._slots:
                job = await read_job(self._log, job_id, state)
        except TimeoutError:
            raise UnavailableError(
                f"reading job {job_id} from the log took more than {limits.HISTORY_READ_S:g} s; "
                "try again when the fleet is less busy, or look at an exported log",
                metadata={"job": job_id},
            ) from None
        if job.state.final:
            self._keep(job)
        return job

    def _keep(self, job: Job) -> None:
        self._kept[job.job_id] = job
        self._tasks_kept += tasks_held(job)
        while len(self._kept) > limits.HISTORY_JOBS or self._tasks_kept > limits.HISTORY_TASKS:
            _, oldest = self._kept.popitem(last=False)
            self._tasks_kept -= tasks_held(oldest)


async def read_job(log: EventLog, job_id: JobId, state: State) -> Job:
    """Folds a job from its submit to its end, or to `state`. Raises NotFoundError and as EventLog.read does."""
    first = await log.find_first(job_subject(job_id))
    job = await find_job(log, job_id, state, after=first - 1) if 0 < first <= state.sequence else None
    if job is None:
        raise no_such_job(job_id)
    return job


async def find_job(log: ReadableLog, job_id: JobId, state: State, *, after: int = 0) -> Job | None:
    """A job as the log has it at `state`, submitted after a position; None where there is none. Raises as read does."""
    start = Folded(after, 0, (), State(models=state.models, removed=state.removed))
    job = None
    async with aclosing(history(log, start, Scope(frozenset({job_id})), state.sequence)) as past:
        async for folded in past:
            job = folded.state.jobs.get(job_id)
            if job is not None and job.state.final:
                break
    return job


async def past_jobs(log: ReadableLog, state: State, count: int) -> list[Job]:
    """The jobs that `state` has let go, at most `count`, those that were submitted last. Reads all records.

    Raises LogCorruptError, BrokerUnavailableError.
    """
    newest: list[tuple[int, JobId, Job]] = []
    start, scope = (
        Folded(0, 0, (), State(models=state.models, removed=state.removed)),
        Scope(frozenset(), every_job=True),
    )
    async with aclosing(history(log, start, scope, state.retired_sequence)) as past:
        async for folded in past:
            for job in ended_jobs(folded):
                if job.job_id not in state.jobs:
                    heappush(newest, (job.create_sequence, job.job_id, job))
            while len(newest) > count:
                heappop(newest)
    return [job for _, _, job in newest]


def ended_jobs(decided: Decided) -> Iterator[Job]:
    """The jobs that ended in a record, as it left them."""
    for event in decided.events:
        if isinstance(event, JobSucceeded | JobFailed | JobCancelled):
            job = decided.state.jobs.get(event.job_id)
            if job is not None:
                yield job


def no_such_job(job_id: str) -> NotFoundError:
    """What is said of a job that never was."""
    return NotFoundError(
        f"there is no job {job_id!r}; list them with: hivefold job ls",
        reason=Reason.JOB_NOT_FOUND,
        metadata={"job": job_id},
    )


async def history(log: ReadableLog, start: Folded, scope: Scope, up_to: int) -> AsyncGenerator[Folded, None]:
    """Folds the records after `start` up to and including `up_to`; yields those that may be in scope.

    A log of a million records takes as long as reading it, not as long as understanding it. Raises
    LogCorruptError, BrokerUnavailableError.
    """
    folded = start
    if folded.sequence >= up_to:
        return
    async for page in log.read(after=folded.sequence, up_to=up_to):
        for count, stored in enumerate(filter(lambda stored: scope.may_hold(stored.data), page), 1):
            record = decode_record(stored)
            folded = fold(folded.state, scope, record.sequence, record.time_us, record.events)
            yield folded
            if count % limits.HISTORY_SLICE_RECORDS == 0:
                await asyncio.sleep(0)


async def hash_at(log: ReadableLog, sequence: int) -> bytes:
    """Hash of a record. Raises LogCorruptError where there is none, BrokerUnavailableError."""
    async for page in log.read(after=sequence - 1, up_to=sequence):
        return record_hash(page[0].sequence, page[0].subject, page[0].data)
    raise LogCorruptError(f"record {sequence} is missing from the log", position=sequence)

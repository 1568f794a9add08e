"""Jobs that ended long ago: the state has let them go, clients do not notice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from coordinator.core.model import Job, State
from coordinator.history import PastJobs, find_job, past_jobs
from coordinator.views import job_view
from hivefold import limits
from hivefold.bus.memory import MemoryBroker
from hivefold.client import JobOptions
from hivefold.errors import ConflictError, LimitExceededError, NotFoundError, Reason, UnavailableError
from hivefold.ids import JobId
from hivefold.log.memory import MemoryEventLog
from hivefold.v1 import feed_pb2, job_pb2
from tests.unit.coordinator.fleet import ScriptedNode, until, working
from tests.unit.coordinator.serving import Served, serving


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECENT_JOBS", 1)


@pytest.fixture
async def served(log: MemoryEventLog, broker: MemoryBroker) -> AsyncIterator[Served]:
    async with serving(log, broker) as served, working(ScriptedNode(broker, "n1", slots=2)):
        yield served


async def run_probes(served: Served, count: int) -> list[job_pb2.Job]:
    """Runs jobs one after another; gives each as it was when it ended."""
    return [await run_probe(served, f"r{number}") for number in range(count)]


async def run_probe(served: Served, request_id: str) -> job_pb2.Job:
    job = await served.fleet.jobs.submit_probe(3, options=JobOptions(request_id=request_id))
    return await served.fleet.jobs.wait(job.job_id)


async def test_a_job_that_has_left_the_state_is_shown_as_it_ended(served: Served) -> None:
    """GetJob, ListTasks and WatchJob read it from the log and say what they said before."""
    first = await run_probe(served, "r0")
    tasks = [task async for task in served.fleet.jobs.tasks(first.job_id)]
    told = [event async for event in served.fleet.jobs.watch(first.job_id)]
    await run_probes(served, 4)

    assert first.job_id not in served.writer.state.jobs
    assert await served.fleet.jobs.get(first.job_id) == first
    assert [task async for task in served.fleet.jobs.tasks(first.job_id)] == tasks
    assert [event async for event in served.fleet.jobs.watch(first.job_id)] == told
    assert [event async for event in served.fleet.jobs.watch(first.job_id, after_sequence=first.sequence)] == []


async def test_readers_of_a_log_find_what_its_state_has_let_go(served: Served, log: MemoryEventLog) -> None:
    """As `log replay` does, which has nothing but the records: one job with its tasks, or the newest few."""
    first, *others = await run_probes(served, 5)
    state = served.writer.state
    kept = set(state.jobs)
    gone = [job.job_id for job in (first, *others) if job.job_id not in kept]

    found = await find_job(log, JobId(first.job_id), state)
    assert found is not None
    assert (job_view(found), len(found.done)) == (first, 3)
    assert await find_job(log, JobId("j-none"), state) is None
    assert {job.job_id for job in await past_jobs(log, state, 10)} == set(gone)
    assert {job.job_id for job in await past_jobs(log, state, 2)} == set(gone[-2:])


async def test_a_late_repeat_of_a_submit_gives_the_first_job(served: Served) -> None:
    """The request is known when the job is not; with another spec it is refused."""
    first, *_ = await run_probes(served, 4)
    ended = served.writer.state.ended_total
    again = await served.fleet.jobs.submit_probe(3, options=JobOptions(request_id="r0"))

    assert again == first
    with pytest.raises(ConflictError) as refused:
        await served.fleet.jobs.submit_probe(4, options=JobOptions(request_id="r0"))
    assert refused.value.reason is Reason.REQUEST_ID_REUSED
    assert (served.writer.state.ended_total, len(served.writer.state.open_jobs)) == (ended, 0)


async def test_what_ended_long_ago_cannot_be_cancelled(served: Served) -> None:
    """A cancelled job stays cancelled; any other says how it ended; one that never was is not found."""
    await until(lambda: len(served.writer.state.nodes) == 1)
    await served.fleet.nodes.drain("n1", "no work")
    cancelled = await served.fleet.jobs.submit_probe(1, options=JobOptions(request_id="c"))
    await served.fleet.jobs.cancel(cancelled.job_id)
    await served.fleet.nodes.undrain("n1")
    succeeded, *_ = await run_probes(served, 4)

    again = await served.fleet.jobs.cancel(cancelled.job_id)
    assert again.state == job_pb2.JOB_STATE_CANCELLED
    with pytest.raises(ConflictError, match="has succeeded"):
        await served.fleet.jobs.cancel(succeeded.job_id)
    with pytest.raises(NotFoundError):
        await served.fleet.jobs.get("j-none")


async def test_events_of_jobs_that_left_meanwhile_are_published(log: MemoryEventLog, broker: MemoryBroker) -> None:
    """The feed goes on where the stream ends, also for jobs that the state has let go since."""

    def ended() -> set[str]:
        events = [feed_pb2.JobEvent.FromString(data) for name, data, _ in broker.events if "job" in name]
        return {event.job.job_id for event in events if event.type == feed_pb2.JOB_EVENT_TYPE_SUCCEEDED}

    async with serving(log, broker) as served, working(ScriptedNode(broker, "n1")):
        jobs = await run_probes(served, 5)
        await until(lambda: len(ended()) == len(jobs))
    del broker.events[len(broker.events) // 5 :]
    async with serving(log, broker):
        await until(lambda: ended() == {job.job_id for job in jobs})


async def test_reads_of_the_past_are_bounded(
    served: Served, log: MemoryEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many callers of one job read it once; too many jobs at once are refused; a silent broker ends the wait."""
    first, second, third, *_ = await run_probes(served, 5)
    state, past = served.writer.state, PastJobs(log)
    monkeypatch.setattr(limits, "HISTORY_WAITING", 2)
    monkeypatch.setattr(limits, "HISTORY_READ_S", 0.05)
    log.hold()
    reads = [asyncio.create_task(find(past, job.job_id, state)) for job in (first, first, second)]
    await asyncio.sleep(0)
    with pytest.raises(LimitExceededError):
        await find(past, third.job_id, state)
    outcomes = await asyncio.gather(*reads, return_exceptions=True)
    log.release()

    assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 3
    found = await asyncio.gather(*(find(past, first.job_id, state) for _ in range(3)))
    assert found[0] is found[1] is found[2]


async def find(past: PastJobs, job_id: str, state: State) -> Job:
    return await past.find(JobId(job_id), state)

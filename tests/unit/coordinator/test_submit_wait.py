"""A submit whose answer waits for the job's end: one call there and back."""

from __future__ import annotations

import asyncio

import grpc.aio
import pytest

from coordinator.batch import Accepted
from coordinator.core.commands import SubmitJob
from coordinator.core.model import JobSpec, ProbeSpec
from hivefold.bus.memory import MemoryBroker
from hivefold.client import JobOptions
from hivefold.errors import InvalidRequestError
from hivefold.ids import JobId, RequestId
from hivefold.log.memory import MemoryEventLog
from hivefold.v1 import error_pb2, job_pb2, work_pb2
from hivefold.v1 import job_service_pb2 as pb
from hivefold.v1.job_service_pb2_grpc import JobServiceStub
from tests.unit.coordinator.fleet import ScriptedNode, until, working
from tests.unit.coordinator.serving import Served, serving

LONG_S = 20.0


def probe(task_count: int = 1) -> job_pb2.JobSpec:
    return job_pb2.JobSpec(source="test", probe=job_pb2.ProbeSpec(task_count=task_count))


def fails(item: work_pb2.WorkItem) -> work_pb2.Outcome:
    return work_pb2.Outcome(failure=error_pb2.Failure(reason=error_pb2.REASON_DATA_INVALID, message="no"))


async def test_the_answer_holds_the_job_as_it_ended(served: Served, broker: MemoryBroker) -> None:
    """One call: accepted, run, and what became of it, at the position of its last record."""
    async with working(ScriptedNode(broker, "n1")):
        job = await served.fleet.jobs.submit(probe(), wait_s=LONG_S)

    assert job.state == job_pb2.JOB_STATE_SUCCEEDED
    assert job.sequence == served.writer.state.jobs[JobId(job.job_id)].sequence
    assert await served.fleet.jobs.get(job.job_id) == job


async def test_a_failed_job_is_an_answer_too(served: Served, broker: MemoryBroker) -> None:
    """How a job ended is in its state; the call itself succeeded."""
    async with working(ScriptedNode(broker, "n1", script=fails)):
        job = await served.fleet.jobs.submit(probe(), wait_s=LONG_S)

    assert (job.state, job.failure.message) == (job_pb2.JOB_STATE_FAILED, "task 0 on n1: no")


async def test_a_job_that_lasts_is_answered_as_it_is(served: Served) -> None:
    """Nobody works: after the wait the answer is the open job, and it can be waited for."""
    job = await served.fleet.jobs.submit(probe(), wait_s=0.01)

    assert job.state == job_pb2.JOB_STATE_PENDING


async def test_a_job_that_is_cancelled_answers_who_waits(served: Served) -> None:
    """Every end is an end, for all that wait for it."""
    request = pb.SubmitJobRequest(request_id="r-1", spec=probe())
    waits = [asyncio.create_task(served.fleet.jobs.submit(request.spec, "r-1", wait_s=LONG_S)) for _ in range(3)]
    await until(lambda: len(served.writer.state.jobs) == 1)
    (job_id,) = served.writer.state.jobs
    await served.fleet.jobs.cancel(job_id)

    assert {job.state for job in await asyncio.gather(*waits)} == {job_pb2.JOB_STATE_CANCELLED}


async def test_a_repeat_finds_the_job_ended(served: Served, broker: MemoryBroker) -> None:
    """What a client sends again after a cut: the same job, not run twice, answered at once."""
    async with working(node := ScriptedNode(broker, "n1")):
        first = await served.fleet.jobs.submit(probe(), "r-1", wait_s=LONG_S)
    again = await served.fleet.jobs.submit(probe(), "r-1", wait_s=LONG_S)

    assert again == first
    assert len(node.seen) == 1


async def test_the_answer_comes_before_the_call_is_over(served: Served) -> None:
    """A caller with less time than it asks to wait gets the accepted job, not DEADLINE_EXCEEDED."""
    async with grpc.aio.insecure_channel(served.address) as channel:
        request = pb.SubmitJobRequest(request_id="r-1", spec=probe())
        request.wait.FromSeconds(20)
        answer: pb.SubmitJobResponse = await JobServiceStub(channel).SubmitJob(request, timeout=0.2)

    assert answer.job.state == job_pb2.JOB_STATE_PENDING


async def test_a_caller_that_goes_away_leaves_nothing_behind(served: Served, broker: MemoryBroker) -> None:
    """The job goes on without it, and its end finds nobody to tell."""
    waiting = asyncio.create_task(served.fleet.jobs.submit(probe(), "r-1", wait_s=LONG_S))
    await until(lambda: len(served.writer.state.jobs) == 1)
    waiting.cancel()
    async with working(ScriptedNode(broker, "n1")):
        again = await served.fleet.jobs.submit(probe(), "r-1", wait_s=LONG_S)

    assert again.state == job_pb2.JOB_STATE_SUCCEEDED


async def test_a_negative_wait_is_refused_by_name(served: Served) -> None:
    """As every malformed field is; nothing is accepted."""
    with pytest.raises(InvalidRequestError) as caught:
        await served.fleet.jobs.submit(probe(), wait_s=-1)

    assert [violation.field for violation in caught.value.violations] == ["wait"]
    assert not served.writer.state.jobs


async def test_a_writer_that_stops_answers_with_what_is_durable(log: MemoryEventLog, broker: MemoryBroker) -> None:
    """The job is accepted and open: its client goes on with the next leader."""
    async with serving(log, broker) as served:
        writer = served.writer
        spec = JobSpec(ProbeSpec(1))
        accepted = await writer.execute(SubmitJob(JobId("j-1"), RequestId("r-1"), spec))
        assert isinstance(accepted, Accepted)
        waiting = asyncio.create_task(writer.until_final(accepted.state.jobs[JobId("j-1")], LONG_S))
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        job = await waiting

    assert not job.state.final
    assert await writer.until_final(job, LONG_S) is job


async def test_a_job_that_is_run_is_given_as_it_ended(served: Served, broker: MemoryBroker) -> None:
    """The client's one call for submit and wait, with a progress that is called and without."""
    told: list[job_pb2.Job] = []
    async with working(ScriptedNode(broker, "n1")):
        job = await served.fleet.jobs.run_probe(3, options=JobOptions(request_id="r-1"))
        again = await served.fleet.jobs.run(job.spec, "r-1", told.append)

    assert (job.state, job.progress.tasks_succeeded) == (job_pb2.JOB_STATE_SUCCEEDED, 3)
    assert (again, told) == (job, [])

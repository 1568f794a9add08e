"""Followers see every event once and in order, wherever they begin; the public stream loses none over restarts."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from coordinator.history import PastJobs
from coordinator.watch import watch_job, watch_nodes
from coordinator.writer import Writer
from hivefold import limits
from hivefold.bus.memory import MemoryBroker
from hivefold.bus.port import Message
from hivefold.client import JobOptions
from hivefold.errors import InvalidRequestError, NotFoundError
from hivefold.ids import JobId
from hivefold.log.memory import MemoryEventLog
from hivefold.v1 import error_pb2, feed_pb2, job_pb2, work_pb2
from tests.unit.coordinator.fleet import ScriptedNode, until, working
from tests.unit.coordinator.serving import Served, serving


async def watched(
    writer: Writer, log: MemoryEventLog, job_id: str, after: int = 0, *, count: int = 1 << 30
) -> list[feed_pb2.JobEvent]:
    events: list[feed_pb2.JobEvent] = []
    async with aclosing(watch_job(writer, log, PastJobs(log), JobId(job_id), after)) as watching:
        async for together in watching:
            events += together
            if len(events) >= count:
                break
    return events[:count]


def places(events: list[feed_pb2.JobEvent]) -> list[tuple[int, int]]:
    return [(event.sequence, event.index) for event in events]


def stored_jobs(broker: MemoryBroker, job_id: str) -> list[feed_pb2.JobEvent]:
    subject = f"events.job.{job_id}"
    return [feed_pb2.JobEvent.FromString(data) for name, data, _ in broker.events if name == subject]


async def run_probe(served: Served, broker: MemoryBroker, tasks: int, request_id: str = "r1") -> job_pb2.Job:
    async with working(ScriptedNode(broker, "n1", slots=2), ScriptedNode(broker, "n2", slots=2)):
        job = await served.fleet.jobs.submit_probe(tasks, options=JobOptions(request_id=request_id))
        return await served.fleet.jobs.wait(job.job_id)


async def test_a_watch_tells_the_whole_story(served: Served, broker: MemoryBroker) -> None:
    """From submitted to succeeded, each event with the job as it was then."""
    job = await run_probe(served, broker, 50)
    events = [event async for event in served.fleet.jobs.watch(job.job_id)]

    assert events[0].type == feed_pb2.JOB_EVENT_TYPE_SUBMITTED
    assert events[-1].type == feed_pb2.JOB_EVENT_TYPE_SUCCEEDED
    done = [event.job.progress.tasks_succeeded for event in events]
    assert done == sorted(done)
    assert done[-1] == 50
    assert events[-1].job == job


async def test_live_and_read_back_are_the_same(served: Served, broker: MemoryBroker, log: MemoryEventLog) -> None:
    """An event derived live and the same event derived from the log are equal, byte for byte."""
    job = await served.fleet.jobs.submit_probe(30)
    live = asyncio.create_task(watched(served.writer, log, job.job_id))
    async with working(ScriptedNode(broker, "n1", slots=2)):
        seen = await asyncio.wait_for(live, 10)
    read_back = await watched(served.writer, log, job.job_id)
    await until(lambda: len(stored_jobs(broker, job.job_id)) >= len(seen))

    assert seen == read_back == stored_jobs(broker, job.job_id)


async def test_a_watch_can_begin_anywhere(served: Served, broker: MemoryBroker, log: MemoryEventLog) -> None:
    """For every position: exactly what came after it, nothing twice."""
    job = await run_probe(served, broker, 20)
    everything = await watched(served.writer, log, job.job_id)

    for after in range(job.sequence + 1):
        expected = [event for event in everything if event.sequence > after]
        assert await watched(served.writer, log, job.job_id, after) == expected


async def test_a_watcher_that_falls_behind_misses_nothing(
    served: Served, broker: MemoryBroker, log: MemoryEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its queue overflows, it reads the log instead, and goes on live."""
    monkeypatch.setattr(limits, "FOLLOWER_QUEUE", 2)
    job = await served.fleet.jobs.submit_probe(200)
    slow: list[feed_pb2.JobEvent] = []
    async with aclosing(watch_job(served.writer, log, PastJobs(log), JobId(job.job_id), 0)) as watching:
        slow += await anext(watching)
        async with working(ScriptedNode(broker, "n1")):
            await until(lambda: served.writer.state.jobs[JobId(job.job_id)].state.final)
        slow += [event async for together in watching for event in together]

    assert slow == await watched(served.writer, log, job.job_id)
    assert len(places(slow)) == len(set(places(slow)))


async def test_a_watch_of_nothing_is_refused(served: Served, log: MemoryEventLog) -> None:
    """An unknown job, and a position that the log has not reached."""
    job = await served.fleet.jobs.submit_probe(1)
    with pytest.raises(NotFoundError):
        await watched(served.writer, log, "j-none")
    with pytest.raises(InvalidRequestError):
        await watched(served.writer, log, job.job_id, 10_000)


async def test_a_failed_attempt_is_told_with_its_reason(served: Served, broker: MemoryBroker) -> None:
    """Who, which task, why: without a look at the log."""

    def fail(item: work_pb2.WorkItem) -> work_pb2.Outcome:
        return work_pb2.Outcome(
            failure=error_pb2.Failure(reason=error_pb2.REASON_NODE_LOST, message="boom", retryable=True)
        )

    async with working(ScriptedNode(broker, "n1", script=fail)):
        job = await served.fleet.jobs.submit_probe(1, options=JobOptions(max_attempts=1))
        events = [event async for event in served.fleet.jobs.watch(job.job_id)]

    failed = next(event for event in events if event.type == feed_pb2.JOB_EVENT_TYPE_ATTEMPT_FAILED)
    assert (failed.node_id, list(failed.tasks), failed.failure.message) == ("n1", [0], "boom")
    assert events[-1].type == feed_pb2.JOB_EVENT_TYPE_FAILED
    assert events[-1].failure.reason == error_pb2.REASON_ATTEMPTS_EXHAUSTED


async def test_nodes_can_be_followed_from_the_past(served: Served, broker: MemoryBroker, log: MemoryEventLog) -> None:
    """From a position on, and from now on."""
    async with working(ScriptedNode(broker, "n1")):
        await until(lambda: len(served.writer.state.nodes) == 1)
        async with aclosing(watch_nodes(served.writer, log, 1)) as watching:
            joined = await anext(watching)
        live = watch_nodes(served.writer, log, 0)
        following = asyncio.ensure_future(anext(live))
        await asyncio.sleep(0)
        await served.fleet.nodes.drain("n1", "disk")
        drained = await asyncio.wait_for(following, 5)
        while drained.type != feed_pb2.NODE_EVENT_TYPE_DRAIN_STARTED:
            drained = await asyncio.wait_for(anext(live), 5)
        await live.aclose()

    assert (joined.type, joined.node.spec.node_id) == (feed_pb2.NODE_EVENT_TYPE_JOINED, "n1")
    assert drained.node.draining


async def test_the_one_who_asked_is_answered(served: Served, broker: MemoryBroker) -> None:
    """A job with a response subject sends its final event there, once it is known."""
    answers: list[feed_pb2.JobEvent] = []

    def keep(message: Message) -> None:
        answers.append(feed_pb2.JobEvent.FromString(message.data))

    await broker.connect().signals().subscribe("myapp.replies.7", keep)
    job = await served.fleet.jobs.submit_probe(1, options=JobOptions(response_subject="myapp.replies.7"))
    await served.fleet.jobs.cancel(job.job_id)
    await until(lambda: bool(answers))

    assert [(answer.type, answer.job.job_id) for answer in answers] == [(feed_pb2.JOB_EVENT_TYPE_CANCELLED, job.job_id)]


async def test_the_stream_goes_on_after_a_restart(log: MemoryEventLog, broker: MemoryBroker) -> None:
    """A coordinator that dies before it published goes on where the stream ends; repeats are possible, gaps are not."""
    async with serving(log, broker) as served:
        job = await run_probe(served, broker, 40)
        expected = await watched(served.writer, log, job.job_id)
        await until(lambda: len(stored_jobs(broker, job.job_id)) == len(expected))
    del broker.events[len(broker.events) // 2 :]
    async with serving(log, broker) as served:
        await until(lambda: places(stored_jobs(broker, job.job_id))[-1:] == places(expected)[-1:])

    published = stored_jobs(broker, job.job_id)
    assert set(places(published)) == set(places(expected))
    by_place = {(event.sequence, event.index): event for event in expected}
    assert all(event == by_place[event.sequence, event.index] for event in published)


async def test_an_empty_stream_is_filled_as_far_back_as_it_would_keep(
    log: MemoryEventLog, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the stream would still hold is published again; what it would have dropped by now is not."""
    async with serving(log, broker) as served:
        job = await run_probe(served, broker, 10)
        expected = places(await watched(served.writer, log, job.job_id))
    broker.events.clear()
    async with serving(log, broker):
        await until(lambda: places(stored_jobs(broker, job.job_id)) == expected)
    broker.events.clear()
    monkeypatch.setattr(limits, "FEED_MAX_AGE_S", -1)
    async with serving(log, broker) as served:
        other = await served.fleet.jobs.submit_probe(1, options=JobOptions(request_id="r2"))
        await until(lambda: bool(stored_jobs(broker, other.job_id)))

    assert stored_jobs(broker, job.job_id) == []


async def test_a_watch_shows_its_own_job_only(served: Served, broker: MemoryBroker, log: MemoryEventLog) -> None:
    """Two jobs share records and nodes; their stories stay apart."""
    other = await served.fleet.jobs.submit_probe(20, options=JobOptions(request_id="other"))
    job = await run_probe(served, broker, 20)

    for job_id in (job.job_id, other.job_id):
        events = await watched(served.writer, log, job_id, count=3)
        assert {event.job.job_id for event in events} == {job_id}

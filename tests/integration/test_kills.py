"""kill -9 of every kind of process in mid job: no acknowledged job is lost, no task is counted twice.

Each case runs a probe job of tasks long enough to be caught in the act, and then asks the log itself: every
task has exactly one success in the records, and the replay gives the live coordinator's digest,
and every record is decided again as it was.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cli.log.source import LiveLog
from coordinator.audit.recheck import recheck
from coordinator.core.events import TasksSucceeded
from coordinator.core.invariants import violations
from coordinator.replay import Replayer
from coordinator.wire.records import decode_record
from hivefold.client import Fleet, JobOptions, connect
from hivefold.errors import UnavailableError
from hivefold.log.port import Stored
from hivefold.v1 import job_pb2
from tests.integration.fleets import RunningFleet, running_fleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

TASKS = 400
TASK_S = 0.02


def kill(fleet: RunningFleet, name: str) -> None:
    os.kill(fleet.endpoints["pids"][name], signal.SIGKILL)


async def patiently(call: Callable[[], Awaitable[job_pb2.Job]]) -> job_pb2.Job:
    """What a client does while a server comes back: the same call again, within a bound."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await call()
            except UnavailableError:
                await asyncio.sleep(0.2)


async def submit(client: Fleet, request_id: str) -> job_pb2.Job:
    return await client.jobs.submit_probe(TASKS, task_duration_s=TASK_S, options=JobOptions(request_id=request_id))


async def until_some_done(client: Fleet, job_id: str, done: int) -> None:
    async with asyncio.timeout(60):
        while (await client.jobs.get(job_id)).progress.tasks_succeeded < done:
            await asyncio.sleep(0.05)


async def check_log(client: Fleet, job_id: str) -> None:
    """Every task succeeded once in the records, and the replay is the live state."""
    head = await client.log.head(with_state_digest=True)
    replayer, successes = Replayer(), Counter[int]()
    async for record in client.log.read(up_to=head.sequence):
        read, state = replayer.step(Stored(record.sequence, record.subject, record.data))
        assert decode_record(Stored(record.sequence, record.subject, record.data)).hash == record.hash
        for event in read.events:
            if isinstance(event, TasksSucceeded) and event.job_id == job_id:
                successes.update(event.tasks)
        assert not violations(state)
    assert successes == Counter(range(TASKS))
    assert replayer.result().digest() == head.state_digest
    assert not (await recheck(LiveLog(client), up_to=head.sequence, limit=3)).differences


async def run_and_kill(directory: Path, name: str) -> job_pb2.Job:
    with running_fleet(directory) as fleet:
        async with connect(directory=fleet.directory) as client:
            job = await submit(client, "once")
            await until_some_done(client, job.job_id, TASKS // 8)
            kill(fleet, name)
            again = await patiently(lambda: submit(client, "once"))
            assert again.job_id == job.job_id
            ended = await client.jobs.wait(job.job_id)
            await check_log(client, job.job_id)
            return ended


@pytest.mark.parametrize("name", ["node-1", "coordinator", "nats"])
async def test_a_killed_process_costs_no_job_and_no_task(tmp_path: Path, name: str) -> None:
    """kill -9 in mid job: the job ends well, each task recorded once, a repeated submit finds the same job."""
    ended = await run_and_kill(tmp_path / "hf", name)

    assert ended.state == job_pb2.JOB_STATE_SUCCEEDED
    assert ended.progress.tasks_succeeded == TASKS
    if name == "node-1":
        assert ended.progress.attempts_lost > 0


@pytest.mark.parametrize("name", ["coordinator", "nats"])
async def test_a_run_goes_on_over_a_kill(tmp_path: Path, name: str) -> None:
    """One call to submit and wait: the process dies under it, the caller gets the job as it ended, run once."""
    with running_fleet(tmp_path / "hf") as fleet:
        async with connect(directory=fleet.directory) as client:
            options = JobOptions(request_id="once")
            running = asyncio.create_task(client.jobs.run_probe(TASKS, task_duration_s=TASK_S, options=options))
            job = await submit(client, "once")
            await until_some_done(client, job.job_id, TASKS // 8)
            kill(fleet, name)
            async with asyncio.timeout(60):
                ended = await running
            await check_log(client, job.job_id)

    assert (ended.job_id, ended.state) == (job.job_id, job_pb2.JOB_STATE_SUCCEEDED)
    assert ended.progress.tasks_succeeded == TASKS


async def test_all_of_them_killed_at_once_and_started_again_lose_nothing(tmp_path: Path) -> None:
    """The machine dies: coordinator, nodes and server at once. What was acknowledged goes on after a restart."""
    directory = tmp_path / "hf"
    with running_fleet(directory) as fleet:
        async with connect(directory=directory) as client:
            job = await submit(client, "once")
            await until_some_done(client, job.job_id, TASKS // 8)
        pids = fleet.endpoints["pids"]
        fleet.process.kill()
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
    with running_fleet(directory):
        async with connect(directory=directory) as client:
            ended = await client.jobs.wait(job.job_id)
            await check_log(client, job.job_id)

    assert ended.state == job_pb2.JOB_STATE_SUCCEEDED
    assert ended.progress.tasks_succeeded == TASKS

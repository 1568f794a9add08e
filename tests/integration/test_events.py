"""The public event stream of a real fleet, followed with a plain NATS client, over a kill of the coordinator."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from hivefold.client import JobOptions, connect
from hivefold.config import load_coordinator_config
from hivefold.v1 import feed_pb2, job_pb2
from tests.integration.fleets import RunningFleet, running_fleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.05)


async def subscribed(fleet: RunningFleet) -> Client:
    broker = load_coordinator_config({}, {}, fleet.directory / "config" / "coordinator.toml").nodes
    return await nats.connect(
        fleet.endpoints["nats"], user=broker.user, password=broker.password.reveal(), max_reconnect_attempts=-1
    )


async def test_a_nodes_changes_are_heard_by_its_name(fleet: RunningFleet) -> None:
    """What `events.node.<id>` says of a drain and its end is what `WatchNodes` says, position by position."""
    events: list[feed_pb2.NodeEvent] = []

    async def keep(message: Msg) -> None:
        events.append(feed_pb2.NodeEvent.FromString(message.data))

    def ended() -> bool:
        return any(event.type == feed_pb2.NODE_EVENT_TYPE_DRAIN_ENDED for event in events)

    subscriber = await subscribed(fleet)
    await subscriber.subscribe("events.node.node-2", cb=keep)
    await subscriber.flush()
    async with connect(directory=fleet.directory) as client:
        before = (await client.log.head()).sequence
        try:
            await client.nodes.drain("node-2")
        finally:
            await client.nodes.undrain("node-2")
        await until(ended)
        watched: list[feed_pb2.NodeEvent] = []
        async for event in client.nodes.watch(before):
            watched += [event] if event.node.spec.node_id == "node-2" else []
            if event.type == feed_pb2.NODE_EVENT_TYPE_DRAIN_ENDED:
                break
    await subscriber.close()

    drains = {feed_pb2.NODE_EVENT_TYPE_DRAIN_STARTED, feed_pb2.NODE_EVENT_TYPE_DRAIN_ENDED}
    heard = [event for event in events if event.type in drains]
    assert [event.type for event in heard] == sorted(drains)
    assert heard == [event for event in watched if event.type in drains]
    assert before < heard[0].sequence < heard[1].sequence


async def test_subscribers_miss_nothing_when_the_coordinator_is_killed(tmp_path: Path) -> None:
    """Every event of the job arrives at least once, in the order of the records; the one who asked is answered."""
    events: list[feed_pb2.JobEvent] = []
    answers: list[feed_pb2.JobEvent] = []

    async def keep(message: Msg) -> None:
        events.append(feed_pb2.JobEvent.FromString(message.data))

    async def answer(message: Msg) -> None:
        answers.append(feed_pb2.JobEvent.FromString(message.data))

    with running_fleet(tmp_path / "hf") as fleet:
        subscriber = await subscribed(fleet)
        await subscriber.subscribe("events.job.*", cb=keep)
        await subscriber.subscribe("myapp.replies.1", cb=answer)
        async with connect(directory=fleet.directory) as client:
            options = JobOptions(response_subject="myapp.replies.1")
            job = await client.jobs.submit_probe(300, task_duration_s=0.02, options=options)
            await until(lambda: len(events) > 5)
            os.kill(fleet.endpoints["pids"]["coordinator"], signal.SIGKILL)
            ended = await client.jobs.wait(job.job_id)
            watched = [event async for event in client.jobs.watch(job.job_id)]
            await until(lambda: bool(answers) and events[-1].type == feed_pb2.JOB_EVENT_TYPE_SUCCEEDED)
        await subscriber.close()

    assert ended.state == job_pb2.JOB_STATE_SUCCEEDED
    expected = {(event.sequence, event.index): event for event in watched}
    heard = [(event.sequence, event.index) for event in events]
    assert set(heard) == set(expected)
    assert list(dict.fromkeys(heard)) == sorted(expected)
    assert all(event == expected[event.sequence, event.index] for event in events)
    assert answers[-1].job == ended

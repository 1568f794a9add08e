"""Three coordinators as processes: the leader dies, stops, hands over; clients go on, and nothing is lost or twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hivefold.client import Fleet, JobOptions, connect
from hivefold.errors import NotLeaderError
from hivefold.rpc import error_from_rpc, open_channel
from hivefold.v1 import fleet_service_pb2, job_pb2, log_service_pb2
from hivefold.v1.fleet_service_pb2_grpc import FleetServiceStub
from tests.fixtures.onnx_models import doubling_model
from tests.integration.fleets import RunningFleet, running_fleet
from tests.integration.test_kills import TASKS, check_log, submit, until_some_done

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[RunningFleet]:
    with running_fleet(tmp_path / "hf", "--coordinators", "3") as fleet:
        yield fleet


def addresses(fleet: RunningFleet) -> dict[str, str]:
    """The coordinators' addresses by their ids."""
    return {coordinator["id"]: coordinator["grpc"] for coordinator in fleet.endpoints["coordinators"]}


def signal_to(fleet: RunningFleet, name: str, number: signal.Signals) -> None:
    os.kill(fleet.endpoints["pids"][name], number)


async def heads(fleet: RunningFleet) -> dict[str, log_service_pb2.GetHeadResponse]:
    """What each coordinator that answers says of the log."""

    async def ask(address: str) -> log_service_pb2.GetHeadResponse:
        async with connect(address) as client:
            return await client.log.head()

    found = await asyncio.gather(*(ask(address) for address in addresses(fleet).values()), return_exceptions=True)
    return {
        name: head
        for name, head in zip(addresses(fleet), found, strict=True)
        if isinstance(head, log_service_pb2.GetHeadResponse)
    }


async def leader_of(fleet: RunningFleet, *, other_than: str = "") -> str:
    """The id of who leads."""
    async with asyncio.timeout(60):
        while True:
            for name, head in (await heads(fleet)).items():
                if head.leading and name != other_than:
                    return name
            await asyncio.sleep(0.1)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.1)


async def finished(client: Fleet, job_id: str) -> None:
    """The job ends well, each task recorded once, and the replay is the live state."""
    ended = await client.jobs.wait(job_id)
    assert ended.state == job_pb2.JOB_STATE_SUCCEEDED
    assert ended.progress.tasks_succeeded == TASKS
    await check_log(client, job_id)


async def test_a_killed_leader_costs_nothing(trio: RunningFleet) -> None:
    """kill -9 in mid job: a client that knows the group goes on by itself; a repeated submit is the same job."""
    async with connect(directory=trio.directory) as client:
        job = await submit(client, "once")
        await until_some_done(client, job.job_id, TASKS // 8)
        first = await leader_of(trio)
        signal_to(trio, first, signal.SIGKILL)
        again = await submit(client, "once")

        assert again.job_id == job.job_id
        assert (await client.log.head()).term > 1
        await finished(client, job.job_id)
        progress = (await client.jobs.get(job.job_id)).progress
        assert (progress.attempts_lost, progress.attempts_failed) == (0, 0), "what runs goes on under the next leader"


async def test_a_leader_that_is_told_to_stop_hands_over(trio: RunningFleet) -> None:
    """SIGTERM in mid job: another leads in the next term, and the process that stopped comes back as a standby."""
    async with connect(directory=trio.directory) as client:
        job = await submit(client, "once")
        await until_some_done(client, job.job_id, TASKS // 8)
        first = await leader_of(trio)
        signal_to(trio, first, signal.SIGTERM)
        second = await leader_of(trio, other_than=first)
        await finished(client, job.job_id)

        async def is_back() -> bool:
            head = (await heads(trio)).get(first)
            return head is not None and head.leader_address == addresses(trio)[second]

        await eventually(is_back)
        assert "term_ended" in trio.run("log", "tail", "-n", "100000", "-o", "jsonl").stdout.replace(
            "termEnded", "term_ended"
        )


async def test_an_operator_hands_over_and_the_leader_stays(trio: RunningFleet) -> None:
    """`coordinator hand-over` in mid job: another leads, the same processes run, and a repeat ends no other term."""
    async with connect(directory=trio.directory) as client:
        job = await submit(client, "once")
        await until_some_done(client, job.job_id, TASKS // 8)
        first, pids = await leader_of(trio), trio.endpoints["pids"]
        told = trio.run("coordinator", "hand-over", "-o", "json")
        assert told.returncode == 0, told.stderr
        handed = json.loads(told.stdout)
        second = await leader_of(trio, other_than=first)
        assert (handed["endedTerm"], handed["term"], handed["coordinatorId"]) == ("1", "2", second)
        assert handed["leaderAddress"] == addresses(trio)[second]
        print(f"handed over in {handed['seconds']:.3f} s")

        assert await client.log.hand_over(term=1) == 1
        assert (await client.log.head()).term == 2
        await finished(client, job.job_id)
        assert await leader_of(trio) == second
        assert trio.endpoints["pids"] == pids


async def test_a_stopped_leader_appends_nothing_and_follows(trio: RunningFleet) -> None:
    """SIGSTOP until another leads, then SIGCONT: it steps down in the same process and has the leader's state."""
    async with connect(directory=trio.directory) as client:
        job = await submit(client, "once")
        await until_some_done(client, job.job_id, TASKS // 8)
        first = await leader_of(trio)
        pid = trio.endpoints["pids"][first]
        signal_to(trio, first, signal.SIGSTOP)
        try:
            other = await client.jobs.submit_probe(3, options=JobOptions(request_id="meanwhile"))
            assert (await client.jobs.wait(other)).state == job_pb2.JOB_STATE_SUCCEEDED
        finally:
            signal_to(trio, first, signal.SIGCONT)
        await finished(client, job.job_id)

        async def follows() -> bool:
            mine, leaders = (await heads(trio)).get(first), await client.log.head()
            return mine is not None and not mine.leading and mine.sequence == leaders.sequence

        await eventually(follows)
        assert trio.endpoints["pids"][first] == pid
        assert {head.term for head in (await heads(trio)).values()} == {2}


async def test_standbys_answer_reads_and_name_the_leader(trio: RunningFleet) -> None:
    """What only reads is answered from the followed state; what records is refused with the leader's address."""
    leader = await leader_of(trio)
    async with connect(directory=trio.directory) as client:
        job = await client.jobs.wait(await client.jobs.submit_probe(5))
    for name, address in addresses(trio).items():
        if name == leader:
            continue
        async with connect(address) as standby:
            _ = [record async for record in standby.log.read(after=job.sequence)]  # waits until it is there
            events = [event async for event in standby.jobs.watch(job.job_id)]
            assert events[-1].job == job == await standby.jobs.get(job.job_id)
            assert [node.spec.node_id async for node in standby.nodes.list()] == ["node-1", "node-2", "node-3"]
            assert [record.sequence async for record in standby.log.read(up_to=job.sequence)][-1] == job.sequence
            head = await standby.log.head(with_state_digest=True)
            assert (head.leading, head.leader_address) == (False, addresses(trio)[leader])
            # One address of the group is enough to write: the refusal names the leader, and the client goes there.
            assert (await standby.jobs.submit_probe(1)).job_id
    assert json.loads(trio.run("job", "ls", "-o", "json").stdout)


async def test_an_upload_to_a_standby_is_repeated_with_the_leader(trio: RunningFleet, tmp_path: Path) -> None:
    """A model goes to the coordinator that was named; refused at its end, all of it is sent to the one that leads."""
    doubling_model(tmp_path / "double.onnx")
    leader = await leader_of(trio)
    for name, address in addresses(trio).items():
        if name != leader:
            async with connect(address) as client:
                model = await client.models.add(tmp_path / "double.onnx", "double", request_id="once")
                assert (model.name, model.version) == ("double", 1)
                rows = np.ones((10, 4), dtype=np.float32)
                job = await client.jobs.run_infer("double", rows, options=JobOptions(request_id=f"rows-{name}"))
                assert job.state == job_pb2.JOB_STATE_SUCCEEDED


async def test_the_refusal_of_a_standby_names_the_leader(trio: RunningFleet) -> None:
    """Programs in other languages read it in ErrorInfo: reason NOT_LEADER, metadata `leader`."""
    leader = await leader_of(trio)
    standby = next(address for name, address in addresses(trio).items() if name != leader)
    async with open_channel(standby) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await FleetServiceStub(channel).DrainNode(
                fleet_service_pb2.DrainNodeRequest(request_id="r-1", node_id="node-1")
            )

    error = error_from_rpc(refused.value, standby)
    assert isinstance(error, NotLeaderError)
    assert error.metadata["leader"] == addresses(trio)[leader]


async def serving(address: str) -> bool:
    """What health says, to orchestrators and load balancers."""
    async with open_channel(address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_health_says_when_the_broker_is_frozen(trio: RunningFleet) -> None:
    """SIGSTOP of nats-server: leader and standbys say NOT_SERVING, and SERVING once it goes on; nothing is lost."""
    async with connect(directory=trio.directory) as client:
        job = await submit(client, "once")
        places = list(addresses(trio).values())

        async def all_serve() -> bool:
            return all([await serving(address) for address in places])

        async def none_serves() -> bool:
            return not any([await serving(address) for address in places])

        await eventually(all_serve)
        signal_to(trio, "nats", signal.SIGSTOP)
        try:
            await eventually(none_serves)
        finally:
            signal_to(trio, "nats", signal.SIGCONT)
        await eventually(all_serve)
        await finished(client, job.job_id)

"""Raw abuse of the listeners: bytes that are no protocol, too many calls, words that no node of ours would say.

What is checked each time: the same processes still run, and the fleet still works.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from hivefold.bus import frames
from hivefold.bus.connection import connect as connect_broker
from hivefold.bus.link import Link
from hivefold.client import Fleet, connect
from hivefold.config import load_coordinator_config, load_node_config
from hivefold.errors import HivefoldError, LimitExceededError, Reason
from hivefold.limits import FLEET_NODES
from hivefold.rpc import error_from_rpc
from hivefold.rpc.channel import channel_options
from hivefold.v1 import fleet_pb2, fleet_service_pb2, job_pb2, log_service_pb2, model_pb2, work_pb2
from hivefold.v1.fleet_service_pb2_grpc import FleetServiceStub
from hivefold.v1.log_service_pb2_grpc import LogServiceStub
from tests.integration.fleets import RunningFleet, running_fleet
from tests.integration.refusals import ended, everything, refused, works

pytestmark = pytest.mark.integration

NOISE: Final = {
    "nothing": b"",
    "random": secrets.token_bytes(64 * 1024),
    "zeros": bytes(64 * 1024),
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/2 preface and noise": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + secrets.token_bytes(4096),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + secrets.token_bytes(512),
    "line without an end": b"A" * (1 << 20),
    "NATS without a password": b'CONNECT {"verbose":false}\r\nPUB log.term 3\r\nabc\r\nPUB work.node-1 1\r\nx\r\n',
    "NATS of absurd sizes": b"PUB a 99999999999999999999\r\n" + b"x" * 1000,
}


@pytest.fixture
async def client(fleet: RunningFleet) -> AsyncIterator[Fleet]:
    """A client; after the test the same processes run, and work."""
    pids = fleet.endpoints["pids"]
    async with connect(directory=fleet.directory) as client:
        yield client
        await works(client)
    assert fleet.endpoints["pids"] == pids


@contextlib.asynccontextmanager
async def node_link(fleet: RunningFleet, name: str = "node-1") -> AsyncIterator[Link]:
    """A connection with a node's own credentials."""
    link = await connect_broker(load_node_config({}, {}, fleet.directory / "config" / f"{name}.toml").broker)
    try:
        yield link
    finally:
        await link.close()


async def say(link: Link, subject: str, data: bytes) -> None:
    link.write(frames.publish(subject.encode(), data))
    await link.flush()


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("listener", ["coordinator", "nats", "node"])
async def test_noise_is_cut_off(client: Fleet, fleet: RunningFleet, listener: str, noise: str) -> None:
    """Bytes that are no protocol, on each port, from several connections at once."""
    endpoints = fleet.endpoints
    address = endpoints["nodes"][0]["grpc"] if listener == "node" else endpoints[listener]
    host, _, port = str(address).removeprefix("nats://").rpartition(":")
    for _ in range(5):
        reader, writer = await asyncio.open_connection(host, int(port))
        with contextlib.suppress(ConnectionError, TimeoutError):
            writer.write(NOISE[noise])
            await asyncio.wait_for(writer.drain(), 2)
            async with asyncio.timeout(0.05):
                while await reader.read(65536):
                    pass
        writer.close()


async def test_bytes_that_are_no_message_are_refused(client: Fleet, fleet: RunningFleet) -> None:
    """gRPC itself refuses what does not parse, and methods that are not there."""
    async with grpc.aio.insecure_channel(fleet.address, channel_options()) as channel:
        submit: Any = channel.unary_unary("/hivefold.v1.JobService/SubmitJob")
        await refused(submit(b"\xff" * 100, timeout=5), HivefoldError)
        nowhere: Any = channel.unary_unary("/hivefold.v1.JobService/DropAll")
        assert "another version" in (await refused(nowhere(b"", timeout=5), HivefoldError)).message


async def test_calls_need_no_deadline(client: Fleet, fleet: RunningFleet) -> None:
    """A call without one gets the server's own."""
    async with grpc.aio.insecure_channel(fleet.address) as channel:
        answer = await LogServiceStub(channel).GetHead(log_service_pb2.GetHeadRequest())

    assert answer.sequence > 0


async def test_calls_beyond_the_limit_are_refused_and_the_others_served(client: Fleet, fleet: RunningFleet) -> None:
    """2000 calls at once: some are told that they are too many, none is lost, and all ends when they do."""
    options = [*channel_options(), ("grpc.use_local_subchannel_pool", 1)]
    async with contextlib.AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(fleet.address, options)) for _ in range(10)
        ]
        calls = [
            FleetServiceStub(channels[n % 10]).WatchNodes(fleet_service_pb2.WatchNodesRequest()) for n in range(2000)
        ]
        refusals: list[HivefoldError] = []

        async def hold(call: Any) -> None:
            try:
                async for _ in call:
                    pass
            except grpc.aio.AioRpcError as error:
                refusals.append(error_from_rpc(error, fleet.address))

        holding = [asyncio.create_task(hold(call)) for call in calls]
        async with asyncio.timeout(20):
            while not any(isinstance(refusal, LimitExceededError) for refusal in refusals):
                await asyncio.sleep(0.05)
        said = {(type(refusal), refusal.reason) for refusal in refusals}
        for task in holding:
            task.cancel()
        await asyncio.gather(*holding, return_exceptions=True)
    assert said == {(LimitExceededError, Reason.LIMIT_EXCEEDED)}
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(LimitExceededError):
                await client.log.head()
                break


def outcome(**fields: Any) -> bytes:
    return work_pb2.Outcome(**fields).SerializeToString()


def tensor(**fields: Any) -> work_pb2.TaskOutput:
    given: dict[str, Any] = {"name": "y", "data_type": model_pb2.DATA_TYPE_FP32, "shape": [1], **fields}
    return work_pb2.TaskOutput(tensors=[work_pb2.TensorPart(**given)], digest="ab" * 32, size_bytes=4)


ABSURD: Final[dict[str, bytes | tuple[int, int, work_pb2.TaskOutput | None]]] = {
    "no message": b"\xff" * 100,
    "nothing": b"",
    "another attempt": outcome(node_id="node-1", job_id="other", task=7, attempt=9),
    "another node": outcome(node_id="node-2"),
    "endless duration": (1 << 62, 1, None),
    "negative duration": (-5, 1, None),
    "2^64 - 1 rows": (1, (1 << 64) - 1, None),
    "unknown type": (1, 1, tensor(data_type=999)),
    "name of 900 kB": (1, 1, tensor(name="y" * 900_000)),
    "20,000 dimensions": (1, 1, tensor(shape=[1] * 20_000)),
    "no digest": (1, 1, work_pb2.TaskOutput(digest="x" * 500_000)),
}


@pytest.mark.parametrize("case", ABSURD)
async def test_outcomes_that_no_node_of_ours_gives_spoil_nothing(client: Fleet, fleet: RunningFleet, case: str) -> None:
    """Published with a node's own credentials for an attempt that it has: the job still ends well."""
    job = await client.jobs.submit_probe(6, task_duration_s=0.4)
    task = await running_on_node_1(client, job.job_id)
    given = ABSURD[case]
    if isinstance(given, tuple):
        seconds, rows, output = given
        message = work_pb2.Outcome(job_id=job.job_id, node_id="node-1", task=task.task, attempt=task.attempt)
        message.duration.seconds, message.row_count = seconds, rows
        if output is not None:
            message.output.CopyFrom(output)
        given = message.SerializeToString()
    async with node_link(fleet) as link:
        await say(link, f"results.node-1.{job.job_id}.{task.task}.{task.attempt}", given)
    done = await ended(client, job)

    assert done.state == job_pb2.JOB_STATE_SUCCEEDED, done.failure.message
    assert done.progress.tasks_succeeded == 6


async def running_on_node_1(client: Fleet, job_id: str) -> job_pb2.Task:
    async with asyncio.timeout(10):
        while True:
            async for task in client.jobs.tasks(job_id):
                if task.node_id == "node-1" and task.state == job_pb2.TASK_STATE_ASSIGNED:
                    return task
            await asyncio.sleep(0.01)


SUBJECTS: Final = (
    b"results.node-1",
    b"results.node-1.x",
    b"results.node-1.j.-1.1",
    b"results.node-1.j.999999999999999999999999.1",
    b"results.node-1.j.0.99999999999",
    b"results.node-1.J J.0.1",
    b"results.node-1.\xff\xfe.0.1",
    b"results.node-1.j.\xd9\xa3.1",
    b"results.node-1." + b"j" * 2000 + b".0.1",
    b"results.node-1.a.b.c.d.e.f",
    b"heartbeat.node-1",
    b"telemetry.node-1",
)


async def test_subjects_that_name_no_attempt_are_passed_over(client: Fleet, fleet: RunningFleet) -> None:
    """Whatever a node may publish, under any subject that it may use."""
    async with node_link(fleet) as link:
        for subject in SUBJECTS:
            for data in (b"", b"\xff" * 100, outcome(node_id="node-1", job_id="j"), secrets.token_bytes(1000)):
                link.write(frames.publish(subject, data))
        await link.flush()
    await works(client)


def beat(node_id: str = "node-1", **fields: Any) -> bytes:
    spec = fields.pop("spec", None) or fleet_pb2.NodeSpec(node_id=node_id, boot_id="b1", slot_count=1)
    return work_pb2.Heartbeat(spec=spec, **fields).SerializeToString()


async def boot_id(client: Fleet) -> str:
    return (await client.nodes.get("node-1")).spec.boot_id


async def test_heartbeats_of_absurd_numbers_are_survived(client: Fleet, fleet: RunningFleet) -> None:
    """Loads that are no ratios, models that are no digests, a spec beyond any record: one node's words."""
    spec = fleet_pb2.NodeSpec(node_id="node-1", boot_id=await boot_id(client), slot_count=1)
    numbers = (math.nan, math.inf, -math.inf, -1.0, 1e300)
    beats = [beat(spec=spec, cpu_utilization_ratio=number, loaded_models=["x" * 9]) for number in numbers]
    beats.append(beat(spec=spec, loaded_models=["x" * 900_000], memory_available_bytes=(1 << 64) - 1))
    beats.append(beat(spec=spec, loaded_models=["ab" * 32] * 10_000, attempts_outstanding=(1 << 32) - 1))
    for boot, labels in (("Bad Boot", {}), ("b2", {"k": "v" * 900_000}), ("b3", {f"k{n}": "v" for n in range(20_000)})):
        strange = fleet_pb2.NodeSpec(node_id="node-1", boot_id=boot, slot_count=(1 << 32) - 1, labels=labels)
        beats.append(beat(spec=strange))
    async with node_link(fleet) as link:
        for data in beats:
            await say(link, "heartbeat.node-1", data)
            await asyncio.sleep(0.05)
    assert (await client.nodes.get("node-1")).spec.boot_id == spec.boot_id


@pytest.mark.timeout(120)
async def test_a_storm_of_strangers_fills_the_fleet_and_no_more(tmp_path: Path) -> None:
    """Beyond FLEET_NODES nobody joins, whoever asks; the coordinator stays up, and once they are lost all is well."""
    with running_fleet(tmp_path / "hf", node_count=1) as fleet:
        pids = fleet.endpoints["pids"]
        settings = load_coordinator_config({}, {}, fleet.directory / "config" / "coordinator.toml").nodes
        link = await connect_broker(settings)
        async with connect(directory=fleet.directory) as client:
            for number in range(FLEET_NODES + 1500):
                name = f"ghost-{number}"
                link.write(frames.publish(f"heartbeat.{name}".encode(), beat(name)))
            for name in ("UPPER", "a$b", "x" * 300):
                link.write(frames.publish(f"heartbeat.{name}".encode(), beat(name)))
            await link.flush()
            most = 0
            async with asyncio.timeout(60):
                while not most or (count := len(await everything(client.nodes.list()))) > 1:
                    most = max(most, len(await everything(client.nodes.list())))
                    await asyncio.sleep(0.2)
            await link.close()
            assert count == 1
            assert most <= FLEET_NODES
            await works(client)
        assert fleet.endpoints["pids"] == pids


async def test_a_response_subject_of_ones_own_is_served(client: Fleet, fleet: RunningFleet) -> None:
    """What is refused to the fleet's own subjects works for others: the last event of the job."""
    settings = load_coordinator_config({}, {}, fleet.directory / "config" / "coordinator.toml").nodes
    link = await connect_broker(settings)
    heard: asyncio.Queue[bytes] = asyncio.Queue(1)
    try:
        await link.listen("myapp.replies.1", lambda subject, reply, data, headers: heard.put_nowait(data))
        spec = job_pb2.JobSpec(probe=job_pb2.ProbeSpec(task_count=1), response_subject="myapp.replies.1")
        await client.jobs.submit(spec)
        async with asyncio.timeout(10):
            assert await heard.get()
    finally:
        await link.close()

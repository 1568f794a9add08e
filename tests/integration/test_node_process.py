"""One node as a real process, against a real nats-server: the test plays the coordinator."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hivefold.blobs.content import read_all, upload_bytes
from hivefold.blobs.jetstream import JetStreamChunks
from hivefold.broker import BrokerSettings
from hivefold.bus.connection import connect
from hivefold.bus.link import Link
from hivefold.bus.port import Message
from hivefold.bus.results import NatsResultReceiver
from hivefold.bus.signals import NatsSignals
from hivefold.bus.streams import prepare_streams
from hivefold.bus.work import NatsWorkSender
from hivefold.config import NodeConfig, write_node_config
from hivefold.rpc import open_channel
from hivefold.server.embedded import EmbeddedServer, RunningServer
from hivefold.v1 import error_pb2, job_pb2, model_pb2, node_service_pb2_grpc, telemetry_pb2, work_pb2
from hivefold.v1.node_service_pb2 import DescribeNodeRequest, DescribeNodeResponse
from tests.fixtures.nats import require_nats_server
from tests.fixtures.onnx_models import doubling_model

pytestmark = pytest.mark.integration
NODE = "node-1"


@dataclass
class Fleet:
    """The coordinator's side, as far as a node sees it."""

    server: RunningServer
    link: Link
    folder: Path
    chunks: JetStreamChunks
    process: asyncio.subprocess.Process
    beats: list[work_pb2.Heartbeat] = field(default_factory=list)
    readings: list[telemetry_pb2.Reading] = field(default_factory=list)
    outcomes: list[work_pb2.Outcome] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def until(self, condition: Callable[[], bool], within_s: float = 20.0) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                assert self.process.returncode is None, "the node ended"
                await asyncio.sleep(0.01)

    async def send(self, work: work_pb2.WorkBatch) -> None:
        await NatsWorkSender(self.link).send(NODE, work.SerializeToString())

    def work(self, job_id: str) -> work_pb2.WorkBatch:
        return work_pb2.WorkBatch(term=1, node_id=NODE, boot_id=self.beats[-1].spec.boot_id, job_id=job_id)

    async def collect(self) -> None:
        receiver = NatsResultReceiver(self.link)
        async for batch in receiver.batches():
            self.outcomes += [work_pb2.Outcome.FromString(result.data) for result in batch]
            await receiver.acknowledge(batch[-1].sequence)

    async def pulse(self) -> None:
        signals = NatsSignals(self.link)
        while True:
            signals.publish(Message("fleet.pulse", work_pb2.Pulse(term=1).SerializeToString()))
            await asyncio.sleep(0.5)

    async def describe(self) -> DescribeNodeResponse:
        async with open_channel(self.beats[-1].spec.grpc_address) as channel:
            stub = node_service_pb2_grpc.NodeServiceStub(channel)
            response: DescribeNodeResponse = await stub.DescribeNode(DescribeNodeRequest(), timeout=5)
            return response

    async def healthy(self) -> bool:
        async with open_channel(self.beats[-1].spec.grpc_address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@contextlib.asynccontextmanager
async def node_process(server: RunningServer, folder: Path) -> AsyncIterator[Fleet]:
    link = await connect(server.nodes)
    await prepare_streams(link)
    config = NodeConfig(broker=await server.node(NODE), node_id=NODE, port=0, data_dir=folder / "state", slots=1)
    path = folder / "node.toml"
    write_node_config(path, config)
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "node", "--config", path)
    fleet = Fleet(server, link, folder, JetStreamChunks(link), process)
    signals = NatsSignals(link)
    await signals.subscribe("heartbeat.*", lambda m: fleet.beats.append(work_pb2.Heartbeat.FromString(m.data)))
    await signals.subscribe("telemetry.*", lambda m: fleet.readings.append(telemetry_pb2.Reading.FromString(m.data)))
    await NatsWorkSender(link).prepare(NODE)
    fleet.tasks = [asyncio.create_task(fleet.collect()), asyncio.create_task(fleet.pulse())]
    try:
        await fleet.until(lambda: bool(fleet.beats))
        yield fleet
    finally:
        for task in fleet.tasks:
            task.cancel()
        if process.returncode is None:
            process.kill()
        await process.wait()
        await link.close()


async def infer_work(fleet: Fleet, rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> work_pb2.WorkBatch:
    model = doubling_model(fleet.folder / "double.onnx")
    work = fleet.work("infer-job")
    work.model.CopyFrom(
        model_pb2.Model(
            name="double",
            version=1,
            digest=hashlib.sha256(model).hexdigest(),
            artifact=await upload_bytes(fleet.chunks, model),
            platform="onnx",
        )
    )
    data_set = work.spec.infer.data_set
    data_set.blob.CopyFrom(await upload_bytes(fleet.chunks, rows.tobytes()))
    data_set.data_type = model_pb2.DATA_TYPE_FP32
    data_set.row_shape.extend(rows.shape[1:])
    data_set.row_count = len(rows)
    return work


async def test_a_node_joins_works_and_leaves_in_good_order(nats_server: RunningServer, tmp_path: Path) -> None:
    """Heartbeats, readings, probes, rows through ONNX Runtime, description, drain: the whole life of one node."""
    async with node_process(nats_server, tmp_path) as fleet:
        assert fleet.beats[0].spec.cpu_count > 0
        assert await fleet.healthy()

        probes = fleet.work("probe-job")
        probes.spec.probe.task_count = 500
        for task in range(500):
            probes.items.add(task=task, attempt=1).spec.probe.SetInParent()
        await fleet.send(probes)
        await fleet.until(lambda: len(fleet.outcomes) == 500)
        assert {outcome.task for outcome in fleet.outcomes} == set(range(500))
        fleet.outcomes.clear()

        rows = np.arange(40_000, dtype=np.float32).reshape(10_000, 4)
        work = await infer_work(fleet, rows)
        for task, (first, count) in enumerate([(0, 100), (100, 9_900)]):
            item = work.items.add(task=task, attempt=1)
            item.spec.infer.first_row, item.spec.infer.row_count = first, count
        await fleet.send(work)
        await fleet.until(lambda: len(fleet.outcomes) == 2)
        few, many = sorted(fleet.outcomes, key=lambda outcome: outcome.task)
        assert not few.HasField("failure"), few.failure
        assert not many.inline_output, "a large output goes to the blob store"
        stored = b"".join([piece async for piece in read_all(fleet.chunks, many.output.blob.root)])
        got = np.frombuffer(few.inline_output + stored, dtype="<f4").reshape(-1, 4)
        np.testing.assert_array_equal(got, rows * 2)
        assert hashlib.sha256(stored).hexdigest() == many.output.digest

        described = await fleet.describe()
        assert list(described.loaded_models) == [work.model.digest]
        assert described.broker_connected
        await fleet.until(lambda: bool(fleet.readings))
        assert fleet.readings[0].memory_available_bytes > 0
        assert fleet.readings[0].processes[0].role == "node"

        fleet.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(fleet.process.wait(), 15) == 0
        assert fleet.beats[-1].leaving


async def test_sigterm_returns_what_waits_and_finishes_what_runs(nats_server: RunningServer, tmp_path: Path) -> None:
    """One slot, three sleeping tasks: the first ends as usual, the others come back at once."""
    async with node_process(nats_server, tmp_path) as fleet:
        work = fleet.work("sleepers")
        work.spec.probe.task_count = 8
        work.spec.probe.task_duration.FromMilliseconds(1000)
        for task in range(8):
            work.items.add(task=task, attempt=1).spec.probe.SetInParent()
        await fleet.send(work)
        await fleet.until(lambda: fleet.beats[-1].attempts_outstanding > 0)
        fleet.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(fleet.process.wait(), 20) == 0
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            while len(fleet.outcomes) < 8:
                await asyncio.sleep(0.01)
        returned = [o for o in fleet.outcomes if o.failure.reason == error_pb2.REASON_RETURNED]
        finished = [o for o in fleet.outcomes if not o.HasField("failure")]
        assert len(returned) + len(finished) == 8
        assert finished
        assert all(outcome.failure.retryable for outcome in returned)


async def test_a_nan_names_its_row_and_is_final(nats_server: RunningServer, tmp_path: Path) -> None:
    """The failure says which row; another attempt would end alike."""
    async with node_process(nats_server, tmp_path) as fleet:
        rows = np.zeros((50, 4), dtype=np.float32)
        rows[33, 2] = np.nan
        work = await infer_work(fleet, rows)
        work.spec.infer.nan_policy = job_pb2.NAN_POLICY_REJECT
        item = work.items.add(task=0, attempt=1)
        item.spec.infer.first_row, item.spec.infer.row_count = 10, 40
        await fleet.send(work)
        await fleet.until(lambda: len(fleet.outcomes) == 1)
        failure = fleet.outcomes[0].failure
        assert failure.reason == error_pb2.REASON_NAN_FOUND
        assert failure.metadata["row"] == "33"
        assert not failure.retryable


async def test_a_node_outlives_its_broker(tmp_path: Path) -> None:
    """The server is killed in mid work and comes back: health says so, and the outcome arrives all the same."""
    await require_nats_server()
    server = await EmbeddedServer(tmp_path / "nats", port=0, nodes=(NODE,)).start()
    port = urlsplit(server.url).port or 0
    async with node_process(server, tmp_path) as fleet:
        work = fleet.work("sleeper")
        work.spec.probe.task_count = 1
        work.spec.probe.task_duration.FromMilliseconds(1500)
        work.items.add(task=0, attempt=1).spec.probe.SetInParent()
        await fleet.send(work)
        await fleet.until(lambda: fleet.beats[-1].attempts_running == 1)
        os.kill(server.pid, signal.SIGKILL)
        await server.wait()
        await server.stop()
        async with asyncio.timeout(20):
            while await fleet.healthy():
                await asyncio.sleep(0.05)
        server = await EmbeddedServer(tmp_path / "nats", port=port, nodes=(NODE,)).start()
        async with asyncio.timeout(20):
            while not await fleet.healthy():
                await asyncio.sleep(0.05)
        await fleet.until(lambda: len(fleet.outcomes) == 1)
        assert not fleet.outcomes[0].HasField("failure")
        assert fleet.process.returncode is None
    await server.stop()


async def test_a_node_that_finds_no_broker_says_where_it_looked(tmp_path: Path) -> None:
    """Exit code 4, the address, and what to do."""
    path = tmp_path / "node.toml"
    broker = BrokerSettings(servers=("nats://127.0.0.1:9",))
    write_node_config(path, NodeConfig(broker=broker, node_id=NODE, port=0, data_dir=tmp_path / "state"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "node", "--config", path, stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 4
    assert "127.0.0.1:9" in said.decode().splitlines()[-1]


async def test_two_nodes_on_one_folder_do_not_start(nats_server: RunningServer, tmp_path: Path) -> None:
    """The second one says what to do and leaves with exit code 2."""
    async with node_process(nats_server, tmp_path):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "node", "--config", tmp_path / "node.toml", stderr=asyncio.subprocess.PIPE
        )
        _, said = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 2
        assert "another node runs" in said.decode()

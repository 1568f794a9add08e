"""The node's loop against the bus in memory: real actors, no network."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from actors.backends.echo import EchoBackend
from actors.model import Backend, ModelBehavior
from actors.probe import ProbeBehavior
from actors.reader import ReaderBehavior
from actors.runtime import spawn
from hivefold.blobs.content import upload_bytes
from hivefold.blobs.memory import MemoryChunks
from hivefold.bus.memory import MemoryBroker, MemoryConnection
from hivefold.bus.port import Message
from hivefold.clock import SystemClock
from hivefold.v1 import error_pb2, fleet_pb2, model_pb2, work_pb2
from node.agent import Agent
from node.content import Content
from node.core import NodeCore
from node.infer import InferRunner
from node.models import ModelShelf
from node.uplink import Uplink

NODE = "node-a"
BOOT = "boot-1"


def identity_model(path: Path) -> bytes:
    """A model that doubles rows of four numbers."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path.read_bytes()


@dataclass
class Rig:
    agent: Agent
    broker: MemoryBroker
    coordinator: MemoryConnection
    chunks: MemoryChunks
    stop: asyncio.Event
    beats: list[work_pb2.Heartbeat] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    async def send(self, work: work_pb2.WorkBatch) -> None:
        await self.coordinator.work_sender().send(NODE, work.SerializeToString())

    async def pulse(self, term: int = 1) -> None:
        await self.coordinator.signals().publish(Message("fleet.pulse", work_pb2.Pulse(term=term).SerializeToString()))

    def outcomes(self) -> list[work_pb2.Outcome]:
        return [work_pb2.Outcome.FromString(result.data) for result in self.broker.results.values()]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)

    async def outcome_count(self, count: int) -> list[work_pb2.Outcome]:
        await self.until(lambda: len(self.broker.results) >= count)
        return self.outcomes()


@asynccontextmanager
async def running(folder: Path, *, slots: int = 1, backend: Backend | None = None) -> AsyncIterator[Rig]:
    broker = MemoryBroker()
    node, coordinator = broker.connect(), broker.connect()
    chunks = MemoryChunks()
    content = Content(chunks)
    used = backend or EchoBackend()
    shelf = ModelShelf(folder / "models", content, lambda: ModelBehavior(used))
    reader = spawn(ReaderBehavior, name="reader")
    prober = spawn(ProbeBehavior, name="prober")
    agent = Agent(
        spec=fleet_pb2.NodeSpec(node_id=NODE, boot_id=BOOT, slot_count=slots),
        core=NodeCore(BOOT, slots + 2),
        signals=node.signals(),
        receiver=node.work_receiver(NODE),
        uplink=Uplink(node.result_sender(), batch_outcomes=200),
        infer=InferRunner(content, shelf, reader, SystemClock(), slots),
        prober=prober,
        clock=SystemClock(),
        drain_s=2.0,
    )
    rig = Rig(agent, broker, coordinator, chunks, asyncio.Event())
    await coordinator.signals().subscribe(
        f"heartbeat.{NODE}", lambda message: rig.beats.append(work_pb2.Heartbeat.FromString(message.data))
    )
    await coordinator.work_sender().prepare(NODE)
    rig.task = asyncio.create_task(agent.run(rig.stop))
    try:
        yield rig
    finally:
        rig.stop.set()
        await asyncio.wait_for(rig.task, 10)
        for model in shelf.stop():
            assert await asyncio.to_thread(model.join, 5)
        reader.stop()
        prober.stop()


def probes(count: int, *, first: int = 0, attempt: int = 1, term: int = 1, sleep_ms: int = 0) -> work_pb2.WorkBatch:
    work = work_pb2.WorkBatch(term=term, node_id=NODE, boot_id=BOOT, job_id="job-1")
    work.spec.probe.task_count = count
    if sleep_ms:
        work.spec.probe.task_duration.FromMilliseconds(sleep_ms)
    for task in range(first, first + count):
        work.items.add(task=task, attempt=attempt).spec.probe.SetInParent()
    return work


async def infer_work(
    rig: Rig, rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]], model: bytes
) -> work_pb2.WorkBatch:
    data = await upload_bytes(rig.chunks, rows.tobytes())
    artifact = await upload_bytes(rig.chunks, model)
    work = work_pb2.WorkBatch(term=1, node_id=NODE, boot_id=BOOT, job_id="job-2")
    work.model.CopyFrom(
        model_pb2.Model(
            name="m", version=1, digest=hashlib.sha256(model).hexdigest(), artifact=artifact, platform="onnx"
        )
    )
    spec = work.spec.infer
    spec.data_set.blob.CopyFrom(data)
    spec.data_set.data_type = model_pb2.DATA_TYPE_FP32
    spec.data_set.row_shape.extend(rows.shape[1:])
    spec.data_set.row_count = len(rows)
    return work


def shard(work: work_pb2.WorkBatch, task: int, first_row: int, row_count: int) -> None:
    item = work.items.add(task=task, attempt=1)
    item.spec.infer.first_row = first_row
    item.spec.infer.row_count = row_count


async def test_every_probe_task_gets_one_outcome_and_then_its_message_is_acknowledged(tmp_path: Path) -> None:
    """Outcomes are stored first, the acknowledgement follows."""
    async with running(tmp_path) as rig:
        await rig.send(probes(1000))
        outcomes = await rig.outcome_count(1000)
        assert sorted(outcome.task for outcome in outcomes) == list(range(1000))
        assert all(not outcome.HasField("failure") and outcome.row_count == 1 for outcome in outcomes)
        assert {outcome.boot_id for outcome in outcomes} == {BOOT}
        await rig.until(lambda: rig.agent.core.idle)
        rig.broker.redeliver(NODE)
        queue = rig.broker.work_queue(NODE)
        assert queue is not None
        assert not queue.waiting
        assert not queue.unanswered


async def test_rows_go_through_the_model_in_order(tmp_path: Path) -> None:
    """Two shards of a blob give the model's outputs for exactly their rows."""
    from actors.backends.onnxruntime import OnnxRuntimeBackend

    model = identity_model(tmp_path / "double.onnx")
    async with running(tmp_path, backend=OnnxRuntimeBackend(1)) as rig:
        rows = np.arange(400, dtype=np.float32).reshape(100, 4)
        work = await infer_work(rig, rows, model)
        shard(work, 0, 0, 60)
        shard(work, 1, 60, 40)
        await rig.send(work)
        first, second = sorted(await rig.outcome_count(2), key=lambda outcome: outcome.task)
        got = np.frombuffer(first.inline_output + second.inline_output, dtype="<f4").reshape(100, 4)
        assert first.failure.reason == error_pb2.REASON_UNSPECIFIED, first.failure
        np.testing.assert_array_equal(got, rows * 2)
        assert list(first.output.tensors[0].shape) == [60, 4]
        assert rig.agent.infer.shelf.loaded == (work.model.digest,)

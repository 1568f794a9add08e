"""The services as a client meets them."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import numpy as np
import pytest

from coordinator.core.digest import state_digest
from coordinator.replay import replay
from hivefold.blobs.files import manifest_of_file
from hivefold.bus.memory import MemoryBroker
from hivefold.client import JobOptions
from hivefold.errors import ConflictError, DataRefusedError, NotFoundError, Reason
from hivefold.log.memory import MemoryEventLog
from hivefold.v1 import fleet_pb2, job_pb2, job_service_pb2, model_pb2, work_pb2
from tests.fixtures.onnx_models import doubling_model
from tests.unit.coordinator.fleet import ScriptedNode, until, working
from tests.unit.coordinator.serving import Served


def doubled(item: work_pb2.WorkItem) -> work_pb2.Outcome:
    """What a node answers that runs the doubling model over rows that count from 0."""
    shard = item.spec.infer
    rows = np.arange(4 * shard.first_row, 4 * (shard.first_row + shard.row_count), dtype="<f4") * 2
    data = rows.tobytes()
    tensor = work_pb2.TensorPart(name="y", data_type=model_pb2.DATA_TYPE_FP32, shape=[shard.row_count, 4])
    output = work_pb2.TaskOutput(tensors=[tensor], digest=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
    return work_pb2.Outcome(row_count=shard.row_count, output=output, inline_output=data)


async def test_a_job_runs_from_upload_to_output(served: Served, broker: MemoryBroker, tmp_path: Path) -> None:
    """Model in, rows in, job, output in input order: all over gRPC."""
    model_bytes = doubling_model(tmp_path / "double.onnx")
    rows = np.arange(4000, dtype="<f4").reshape(1000, 4)
    async with working(ScriptedNode(broker, "n1", slots=2, script=doubled)):
        model = await served.fleet.models.add(tmp_path / "double.onnx", "double")
        job = await served.fleet.jobs.submit_infer("double", rows)
        ended = await served.fleet.jobs.wait(job.job_id)
        size = await served.fleet.jobs.download_output(job.job_id, tmp_path / "out.npy")
        tasks = [task async for task in served.fleet.jobs.tasks(job.job_id)]

    assert (model.digest, model.version) == (hashlib.sha256(model_bytes).hexdigest(), 1)
    assert [(tensor.name, list(tensor.shape)) for tensor in ended.outputs] == [("y", [-1])]
    assert (ended.state, ended.progress.rows_done) == (job_pb2.JOB_STATE_SUCCEEDED, 1000)
    assert size == (tmp_path / "out.npy").stat().st_size
    assert np.array_equal(np.load(tmp_path / "out.npy"), rows * 2)
    assert sum(task.row_count for task in tasks) == 1000
    assert {task.state for task in tasks} == {job_pb2.TASK_STATE_SUCCEEDED}


async def test_a_repeated_request_gives_the_same_job(served: Served) -> None:
    """Retrying a submit is safe; the same id for something else is not."""
    spec = job_pb2.JobSpec(probe=job_pb2.ProbeSpec(task_count=3))
    first = await served.fleet.jobs.submit(spec, "r-1")
    again = await served.fleet.jobs.submit(spec, "r-1")
    spec.probe.task_count = 4
    with pytest.raises(ConflictError) as caught:
        await served.fleet.jobs.submit(spec, "r-1")

    assert first.job_id == again.job_id
    assert (caught.value.reason, caught.value.metadata["job"]) == (Reason.REQUEST_ID_REUSED, first.job_id)


async def test_jobs_are_listed_newest_first_and_in_pages(served: Served) -> None:
    """Every job is on one page, and on one only; filters hold over all of them."""
    for number in range(7):
        options = JobOptions(labels={"parity": str(number % 2)}, request_id=f"r{number}")
        await served.fleet.jobs.submit_probe(1, options=options)

    everything = [job.request_id async for job in served.fleet.jobs.list()]
    odd = [job.request_id async for job in served.fleet.jobs.list(labels={"parity": "1"})]
    ended = [job async for job in served.fleet.jobs.list(states=[job_pb2.JOB_STATE_SUCCEEDED])]

    assert everything == [f"r{number}" for number in reversed(range(7))]
    assert odd == ["r5", "r3", "r1"]
    assert ended == []


async def test_cancelling_twice_is_harmless(served: Served) -> None:
    """The second call gives the same answer; a job that is not known does not."""
    job = await served.fleet.jobs.submit_probe(3)
    first = await served.fleet.jobs.cancel(job.job_id, "never mind")
    second = await served.fleet.jobs.cancel(job.job_id)
    with pytest.raises(NotFoundError) as caught:
        await served.fleet.jobs.cancel("j-unknown")

    assert first.state == second.state == job_pb2.JOB_STATE_CANCELLED
    assert first.failure.message == second.failure.message == "never mind"
    assert caught.value.reason is Reason.JOB_NOT_FOUND


async def test_output_of_an_unfinished_job_is_refused(served: Served, tmp_path: Path) -> None:
    """The error says where the job stands; no half file is left behind."""
    job = await served.fleet.jobs.submit_probe(3)
    with pytest.raises(ConflictError):
        await served.fleet.jobs.download_output(job.job_id, tmp_path / "out.npz")

    assert list(tmp_path.iterdir()) == []


async def test_nodes_are_shown_and_drained(served: Served, broker: MemoryBroker) -> None:
    """A node as it joined, as it was last heard, and as an operator wants it."""
    async with working(ScriptedNode(broker, "n1"), ScriptedNode(broker, "n2")):
        await until(lambda: len(served.writer.state.nodes) == 2)
        drained = await served.fleet.nodes.drain("n1", "new disk")
        listed = {node.spec.node_id: node async for node in served.fleet.nodes.list()}
        undrained = await served.fleet.nodes.undrain("n1")
        with pytest.raises(NotFoundError) as caught:
            await served.fleet.nodes.get("n3")

    assert drained.draining
    assert (listed["n1"].draining, listed["n2"].draining, undrained.draining) == (True, False, False)
    assert listed["n2"].state == fleet_pb2.NODE_STATE_ONLINE
    assert listed["n2"].heartbeat_time.seconds > 0
    assert caught.value.reason is Reason.NODE_NOT_FOUND


async def test_the_same_model_is_registered_once(served: Served, tmp_path: Path) -> None:
    """The same content under the same name is the same version; other content is the next one."""
    doubling_model(tmp_path / "m.onnx")
    first = await served.fleet.models.add(tmp_path / "m.onnx", "m")
    again = await served.fleet.models.add(tmp_path / "m.onnx", "m")
    (tmp_path / "m.onnx").write_bytes((tmp_path / "m.onnx").read_bytes() + b"\x32\x01x")
    second = await served.fleet.models.add(tmp_path / "m.onnx", "m")

    listed = [(model.name, model.version) async for model in served.fleet.models.list()]
    assert (first.version, again.version, second.version) == (1, 1, 2)
    assert listed == [("m", 1), ("m", 2)]
    assert (await served.fleet.models.get("m")).version == 2
    assert (await served.fleet.models.get("m@1")).digest == first.digest


async def test_what_is_no_model_is_refused_and_not_kept(served: Served, tmp_path: Path) -> None:
    """The refusal names the model, not a temporary file of the server; nothing is stored."""
    (tmp_path / "m.onnx").write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(DataRefusedError) as caught:
        await served.fleet.models.add(tmp_path / "m.onnx", "m")

    assert (caught.value.reason, caught.value.metadata) == (Reason.MODEL_INVALID, {"model": "m"})
    assert "/" not in caught.value.message
    assert served.chunks.chunks == {}


async def test_the_log_is_read_as_it_is_stored(served: Served, log: MemoryEventLog) -> None:
    """Records, hashes, head and state digest agree with a replay of the log."""
    await served.fleet.jobs.submit_probe(3)
    head = await served.fleet.log.head(with_state_digest=True)
    records = [record async for record in served.fleet.log.read(up_to=head.sequence)]
    replayed = await replay(log, up_to=head.sequence)

    assert [record.data for record in records] == [stored.data for stored in log.store][: head.sequence]
    assert records[-1].hash.hex() == head.hash == replayed.head_hash.hex()
    assert head.state_digest == replayed.digest() == state_digest(replayed.state)
    assert (head.term, head.coordinator_id, head.durability) == (1, "test", "fsync-always")


async def test_the_log_can_be_followed(served: Served) -> None:
    """New records come as they are written, up to the position asked for."""
    start = served.writer.state.sequence
    async with asyncio.timeout(5):
        reading = asyncio.create_task(collect(served, start + 3))
        for number in range(3):
            await served.fleet.jobs.submit_probe(1, options=JobOptions(request_id=f"r{number}"))
        sequences = await reading

    assert sequences == list(range(1, start + 4))


async def collect(served: Served, up_to: int) -> list[int]:
    return [record.sequence async for record in served.fleet.log.read(up_to=up_to, follow=True)]


async def test_content_goes_in_and_out(served: Served) -> None:
    """What is stored comes out as it went in; what is not stored is said to be missing."""
    pieces = [bytes([n]) * 1_000_000 for n in range(5)]
    blob = await served.fleet.blobs.upload(lambda: iter(pieces), 5_000_000)
    back = b"".join([piece async for piece in served.fleet.blobs.download(blob.root)])
    with pytest.raises(NotFoundError) as caught:
        _ = [piece async for piece in served.fleet.blobs.download("0" * 64)]

    assert back == b"".join(pieces)
    assert caught.value.reason is Reason.BLOB_NOT_FOUND


async def test_a_cut_upload_is_refused(served: Served) -> None:
    """Less than was announced is no content."""
    with pytest.raises(DataRefusedError):
        await served.fleet.blobs.upload(lambda: iter([b"x" * 10]), 20)


async def test_a_file_is_registered_where_it_lies(served: Served, tmp_path: Path) -> None:
    """Only its manifest is stored, and no digest of it can be told from the file: it takes the key."""
    (tmp_path / "rows.npy").write_bytes(b"x" * 1_500_000)
    blob = await served.fleet.blobs.register_file(tmp_path / "rows.npy", "once")
    plain = manifest_of_file(tmp_path / "rows.npy")

    assert blob.size_bytes == 1_500_000
    assert all(key.startswith("manifest.") for key in served.chunks.chunks)
    assert await served.fleet.blobs.register_file(tmp_path / "rows.npy", "once") == blob
    assert (await served.fleet.blobs.register_file(tmp_path / "rows.npy")).root not in {blob.root, plain.root}
    stored = b"".join(served.chunks.chunks.values())
    assert not any(plain.digest(index) in stored for index in range(plain.chunk_count))


async def test_a_waiting_task_is_explained(served: Served, broker: MemoryBroker) -> None:
    """Which node lacks what; a task that a job does not have is not found."""
    node = ScriptedNode(broker, "n1", slots=1, script=lambda item: None)
    async with working(node):
        job = await served.fleet.jobs.submit_probe(100, task_duration_s=60)
        await until(lambda: bool(node.seen))
        waiting = await served.fleet.jobs.why(job.job_id)
        running = await served.fleet.jobs.why(job.job_id, 0)
        with pytest.raises(NotFoundError, match="tasks 0 to 99"):
            await served.fleet.jobs.why(job.job_id, 100)

    assert waiting.standing == job_service_pb2.TASK_STANDING_WAITS_FOR_ROOM
    assert [refusal.node_id for refusal in waiting.refusals] == ["n1"]
    assert (running.standing, running.node_id) == (job_service_pb2.TASK_STANDING_ASSIGNED, "n1")

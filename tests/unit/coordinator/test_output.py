"""stream_output: the file of a job's output, whatever its tasks' outputs are and wherever they lie."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from immutables import Map

from coordinator import output
from coordinator.core.model import (
    BlobRef,
    Done,
    Job,
    JobSpec,
    JobState,
    ProbeSpec,
    TaskOutput,
    TensorPart,
)
from coordinator.output import OutputFormat, stream_output
from hivefold.blobs.content import upload_bytes
from hivefold.blobs.memory import MemoryChunks
from hivefold.bus.memory import MemoryBroker, MemoryConnection
from hivefold.bus.memory_ends import MemoryResultReceiver, MemoryResultSender
from hivefold.errors import ConflictError, DataRefusedError, NotFoundError, Reason
from hivefold.ids import Digest, JobId, NodeId, RequestId
from hivefold.limits import STREAM_PIECE_BYTES
from hivefold.v1.work_pb2 import Outcome
from tests.samples import infer


@dataclass
class Outputs:
    """A job under construction, its task outputs stored as a node stores them."""

    chunks: MemoryChunks = field(default_factory=MemoryChunks)
    connection: MemoryConnection = field(default_factory=lambda: MemoryConnection(MemoryBroker()))
    done: list[Done] = field(default_factory=list)

    async def add(self, label: np.ndarray, scores: np.ndarray, *, blob: bool) -> None:
        content = label.tobytes() + scores.tobytes()
        task = len(self.done)
        parts = (TensorPart("label", "INT64", label.shape), TensorPart("scores", "FP32", scores.shape))
        digest = Digest(hashlib.sha256(content).hexdigest())
        ref = await upload_bytes(self.chunks, content) if blob else None
        place = None if ref is None else BlobRef(Digest(ref.root), ref.size_bytes)
        outcome = Outcome(task=task, inline_output=b"" if blob else content)
        sender = MemoryResultSender(self.connection)
        await sender.send([(f"results.n1.j1.{task}.1", outcome.SerializeToString())])
        made = TaskOutput(parts, place, digest, len(content))
        self.done.append(Done(1, NodeId("n1"), 1, len(label), task + 1, made))

    def job(self, state: JobState = JobState.SUCCEEDED) -> Job:
        done = Map(enumerate(self.done))
        rows = sum(done.row_count for done in self.done)
        spec = JobSpec(infer(rows))
        job = Job(JobId("j1"), RequestId("r1"), spec, None, state, 0, 0, "", 1, 2)
        return job._replace(planned=len(self.done), done=done)

    async def file(self, output_format: OutputFormat, job: Job | None = None) -> bytes:
        receiver = MemoryResultReceiver(self.connection)
        file = await stream_output(job or self.job(), output_format, receiver, self.chunks)
        pieces = [piece async for piece in file.pieces]
        assert all(0 < len(piece) <= STREAM_PIECE_BYTES for piece in pieces)
        content = b"".join(pieces)
        assert file.total_bytes in {0, len(content)}
        return content


async def outputs(rows: Sequence[int], *, blob: bool) -> tuple[Outputs, np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    label = random.integers(0, 10, sum(rows))
    scores = random.random((sum(rows), 3)).astype(np.float32)
    made = Outputs()
    start = 0
    for count in rows:
        await made.add(label[start : start + count], scores[start : start + count], blob=blob)
        start += count
    return made, label, scores


@pytest.mark.parametrize("blob", [False, True])
@pytest.mark.parametrize("rows", [[1], [3, 1, 2], [7] * 50])
async def test_tensors_come_in_input_order(rows: list[int], blob: bool) -> None:
    """Whether tasks answered inline or with blobs."""
    made, label, scores = await outputs(rows, blob=blob)
    loaded = np.load(io.BytesIO(await made.file(OutputFormat.NPZ)))
    assert np.array_equal(loaded["label"], label)
    assert np.array_equal(loaded["scores"], scores)


async def test_csv_has_the_tensors_side_by_side() -> None:
    """One line a row, in input order."""
    made, label, scores = await outputs([3, 4], blob=False)
    lines = list(csv.reader(io.StringIO((await made.file(OutputFormat.CSV)).decode())))
    assert lines[0] == ["label", "scores_0", "scores_1", "scores_2"]
    assert np.array_equal(np.array(lines[1:], np.float64)[:, 0], label)
    assert np.array_equal(np.array(lines[1:], np.float32)[:, 1:], scores)


async def test_large_outputs_are_cut_into_pieces() -> None:
    """Several megabytes a task, read range by range."""
    made, label, scores = await outputs([200_000, 300_000], blob=True)
    loaded = np.load(io.BytesIO(await made.file(OutputFormat.NPZ)))
    assert np.array_equal(loaded["label"], label)
    assert np.array_equal(loaded["scores"], scores)


async def test_npy_takes_one_output() -> None:
    """Two tensors do not fit into one array."""
    made, _, _ = await outputs([3], blob=False)
    with pytest.raises(ConflictError, match=r"\.npz"):
        await made.file(OutputFormat.NPY)


async def test_npy_is_the_array_itself() -> None:
    """As numpy.save writes it."""
    made, _, _ = await outputs([3, 2], blob=False)
    one = Outputs(connection=made.connection)
    values = np.arange(5, dtype=np.int64)
    for part in (values[:3], values[3:]):
        content = part.tobytes()
        task = len(one.done) + 10
        outcome = Outcome(inline_output=content).SerializeToString()
        await MemoryResultSender(one.connection).send([(f"results.n1.j2.{task}.1", outcome)])
        made_output = TaskOutput(
            (TensorPart("label", "INT64", part.shape),), None, Digest(hashlib.sha256(content).hexdigest()), len(content)
        )
        one.done.append(Done(1, NodeId("n1"), 1, len(part), 3 + len(one.done), made_output))
    assert np.array_equal(np.load(io.BytesIO(await one.file(OutputFormat.NPY))), values)


async def test_a_job_without_output_says_why() -> None:
    """Running, failed and probe jobs have none."""
    made, _, _ = await outputs([2], blob=False)
    for state, fix in ((JobState.RUNNING, "wait"), (JobState.FAILED, "submit it again")):
        with pytest.raises(ConflictError, match=fix):
            await made.file(OutputFormat.NPZ, made.job(state))
    probe = made.job()._replace(spec=JobSpec(ProbeSpec(1)))
    with pytest.raises(ConflictError, match="probe"):
        await made.file(OutputFormat.NPZ, probe)


async def test_an_altered_outcome_is_noticed() -> None:
    """What is sent is what was recorded, or nothing."""
    made, _, _ = await outputs([2], blob=False)
    output_made = made.done[0].output
    assert output_made is not None
    made.done[0] = made.done[0]._replace(output=replace(output_made, digest=Digest("0" * 64)))
    with pytest.raises(DataRefusedError, match="task 0") as caught:
        await made.file(OutputFormat.NPZ)
    assert caught.value.reason is Reason.DIGEST_MISMATCH


async def test_an_altered_chunk_is_noticed() -> None:
    """Chunks are verified before they are sent."""
    made, _, _ = await outputs([2], blob=True)
    for key in made.chunks.chunks:
        if key.startswith("chunk."):
            made.chunks.chunks[key] = bytes(len(made.chunks.chunks[key]))
    with pytest.raises(DataRefusedError):
        await made.file(OutputFormat.CSV)


@pytest.mark.parametrize("blob", [False, True])
async def test_output_that_is_gone_is_not_found(blob: bool) -> None:
    """Stored outcomes are kept for a while only."""
    made, _, _ = await outputs([2, 2], blob=blob)
    made.chunks.chunks.clear()
    receiver = MemoryResultReceiver(made.connection)
    await receiver.acknowledge(2)
    await receiver.purge_job("j1")
    with pytest.raises(NotFoundError, match="j1"):
        await made.file(OutputFormat.NPZ)


async def test_tasks_whose_tensors_differ_make_no_array() -> None:
    """The refusal comes before the first byte."""
    made, _, _ = await outputs([2, 2], blob=False)
    await made.add(np.zeros(2, np.int64), np.zeros((2, 4), np.float32), blob=False)
    with pytest.raises(DataRefusedError, match="task 2") as caught:
        await made.file(OutputFormat.NPZ)
    assert caught.value.reason is Reason.SHAPE_MISMATCH


async def test_a_size_that_does_not_fit_the_tensors_is_refused() -> None:
    """Recorded sizes are checked against shapes."""
    made, _, _ = await outputs([2], blob=False)
    output_made = made.done[0].output
    assert output_made is not None
    made.done[0] = made.done[0]._replace(output=replace(output_made, size_bytes=1))
    with pytest.raises(DataRefusedError, match="another size"):
        await made.file(OutputFormat.NPZ)


async def test_little_is_fetched_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that stops early leaves the rest unread."""
    made, _, _ = await outputs([100] * 200, blob=True)
    asked: list[str] = []
    get = made.chunks.get

    async def counted(key: str) -> bytes:
        asked.append(key)
        return await get(key)

    monkeypatch.setattr(made.chunks, "get", counted)
    monkeypatch.setattr(output, "_SMALL_PIECE_BYTES", 100)
    file = await stream_output(made.job(), OutputFormat.NPZ, MemoryResultReceiver(made.connection), made.chunks)
    async with aclosing(file.pieces) as pieces:
        for _ in range(3):
            assert await anext(pieces)
    assert len(asked) < 100

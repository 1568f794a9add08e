"""The output of a job as one file in input order: assembled while it is sent, verified, in constant memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby, pairwise
from math import prod
from operator import attrgetter
from typing import Any, Final, NamedTuple, assert_never

from coordinator.core.model import Done, InferSpec, Job, JobState, TaskOutput
from hivefold.blobs.content import get_manifest, read_range
from hivefold.blobs.port import ChunkStore
from hivefold.blobs.sealing import SEAL_BYTES, DataKey, erased, job_key_id
from hivefold.blobs.window import in_order
from hivefold.bus.port import ResultReceiver
from hivefold.datasets.data_types import item_bytes
from hivefold.datasets.writing import CsvWriter, NpyWriter, NpzWriter, TensorLayout, TensorWriter
from hivefold.errors import ConflictError, DataRefusedError, NotFoundError, Reason
from hivefold.limits import CHUNK_BYTES, OUTPUT_WINDOW_BYTES, OUTPUT_WINDOW_PIECES, STREAM_PIECE_BYTES
from hivefold.v1.work_pb2 import Outcome

_SMALL_PIECE_BYTES: Final = STREAM_PIECE_BYTES // 4
"""Smaller pieces are gathered; larger ones are handed on as they are, uncopied."""


class OutputFormat(StrEnum):
    """Format of an output file."""

    NPZ = "NPZ"
    NPY = "NPY"
    CSV = "CSV"


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file on its way: its size (0 where it is not known beforehand) and its bytes, STREAM_PIECE_BYTES at once.

    Close `pieces` (contextlib.aclosing) where it is left early: what is fetched ahead ends with it.
    """

    total_bytes: int
    pieces: AsyncGenerator[bytes, None]


class _Slice(NamedTuple):
    """A range of one task's output."""

    task: int
    offset: int
    size: int


async def stream_output(
    job: Job, output_format: OutputFormat, results: ResultReceiver, chunks: ChunkStore, key: DataKey | None = None
) -> OutputFile:
    """The output of an infer job that succeeded, rows in the order of its data set; `key` opens it where it is sealed.

    Raises ConflictError when the job has no output (yet) or the format cannot hold it, DataRefusedError when its
    tasks' tensors do not fit together or cannot be written. While streaming: NotFoundError when stored bytes are
    gone, DataRefusedError (DIGEST_MISMATCH) when they are not those that were recorded (JOB_ERASED: without the key
    that they take), BrokerUnavailableError.
    """
    _check_ended(job)
    # A million tasks take seconds.
    tasks, layouts = await asyncio.to_thread(_survey, job)
    source = _Source(job, tasks, results, chunks, key)
    match output_format:
        case OutputFormat.NPZ:
            npz = NpzWriter(layouts)
            return OutputFile(npz.total_bytes, _fair_pieces(_by_tensor(source, npz, len(layouts))))
        case OutputFormat.NPY:
            npy = NpyWriter(layouts)
            return OutputFile(npy.total_bytes, _fair_pieces(_by_tensor(source, npy, len(layouts))))
        case OutputFormat.CSV:
            _check_rows(layouts)
            return OutputFile(0, _fair_pieces(_by_row(source, CsvWriter(layouts), len(layouts))))
        case other:
            assert_never(other)


def _check_ended(job: Job) -> None:
    if not isinstance(job.spec.kind, InferSpec):
        raise ConflictError(f"Job {job.job_id} is a probe, which has no output.", metadata={"job_id": job.job_id})
    if job.state is not JobState.SUCCEEDED:
        what = "ended without success: submit it again" if job.state.final else "is not done: wait for it"
        raise ConflictError(
            f"Job {job.job_id} is {job.state.value} and has no output; it {what}.", metadata={"job_id": job.job_id}
        )


def _survey(job: Job) -> tuple[list[Done], list[TensorLayout]]:
    tasks = [job.done[task] for task in range(job.planned)]
    return tasks, _layouts(tasks)


def _layouts(tasks: Sequence[Done]) -> list[TensorLayout]:
    """The tensors of the whole output. Raises DataRefusedError where the tasks' parts do not fit together."""
    first = _output(tasks[0]).tensors
    expected = [(part.name, part.data_type, part.shape[1:]) for part in first]
    rows = [0] * len(first)
    for task, done in enumerate(tasks):
        output = _output(done)
        found = [(part.name, part.data_type, part.shape[1:]) for part in output.tensors]
        if found != expected or not all(part.shape for part in output.tensors):
            raise DataRefusedError(
                f"The output of task {task} has the tensors {found}, that of task 0 {expected}: no array holds both. "
                "Use a model whose output shape does not depend on the values.",
                reason=Reason.SHAPE_MISMATCH,
            )
        if sum(_part_sizes(output)) != output.size_bytes or (
            output.blob and output.blob.size_bytes != output.size_bytes
        ):
            raise _mismatch(task, "has another size than its tensors")
        for index, part in enumerate(output.tensors):
            rows[index] += part.shape[0]
    return [
        TensorLayout(name, kind, (count, *shape)) for (name, kind, shape), count in zip(expected, rows, strict=True)
    ]


def _check_rows(layouts: Sequence[TensorLayout]) -> None:
    if len({layout.shape[0] for layout in layouts}) != 1:
        raise ConflictError("The outputs have different numbers of rows, which CSV cannot hold: take .npz.")


def _output(done: Done) -> TaskOutput:
    if done.output is None:
        raise ConflictError("A task of this job has no output.")
    return done.output


def _part_sizes(output: TaskOutput) -> list[int]:
    return [prod(part.shape) * item_bytes(part.data_type) for part in output.tensors]


def _mismatch(task: int, why: str) -> DataRefusedError:
    return DataRefusedError(
        f"The stored output of task {task} {why}: it was altered or damaged. Submit the job again.",
        reason=Reason.DIGEST_MISMATCH,
        metadata={"task": str(task)},
    )


class _Source:
    """The outputs of a job's tasks, wherever they are stored; every byte is verified."""

    def __init__(
        self, job: Job, tasks: Sequence[Done], results: ResultReceiver, chunks: ChunkStore, key: DataKey | None
    ) -> None:
        self.tasks = tasks
        self._job = job
        self._results = results
        self._chunks = chunks
        self._key = key

    async def read(self, slices: Iterator[_Slice], width: int) -> AsyncGenerator[bytes, None]:
        """Ranges of tasks' outputs, `width` of them under way. Raises as stream_output says."""
        try:
            async with aclosing(in_order(self._reads(slices), width)) as contents:
                async for content in contents:
                    yield content
        except NotFoundError as error:
            raise NotFoundError(
                f"The output of job {self._job.job_id} is no longer stored in full ({error}): small outputs stay for "
                "some days, and the oldest go when room is needed. Submit the job again, and fetch its output then.",
                metadata={"job_id": self._job.job_id},
            ) from error

    async def _reads(self, slices: Iterator[_Slice]) -> AsyncGenerator[Coroutine[Any, Any, bytes], None]:
        for task, group in groupby(slices, attrgetter("task")):
            blob = _output(self.tasks[task]).blob
            manifest = None if blob is None else await get_manifest(self._chunks, blob.root)
            for part in group:
                if blob is None:
                    yield self._inline(part)
                else:
                    yield read_range(self._chunks, blob.root, part.offset, part.size, manifest=manifest, key=self._key)

    async def _inline(self, part: _Slice) -> bytes:
        done = self.tasks[part.task]
        message = await self._results.get(done.result_sequence)
        content: bytes = Outcome.FromString(message.data).inline_output
        expected = _output(done).digest
        if hashlib.sha256(content).hexdigest() != expected:
            sealed = len(content) == _output(done).size_bytes + SEAL_BYTES
            if sealed and self._key is None:
                raise erased(job_key_id(self._job.job_id))
            content = self._key.open_inline(content) if sealed and self._key else b""
            if self._key is None or self._key.digest(hashlib.sha256(content).hexdigest()) != expected:
                raise _mismatch(part.task, "does not have the digest that was recorded")
        return content[part.offset : part.offset + part.size]


async def _by_tensor(source: _Source, writer: TensorWriter, tensor_count: int) -> AsyncGenerator[bytes, None]:
    """The file of a format that holds tensor after tensor."""
    for index in range(tensor_count):
        yield writer.begin(index)
        slices = _tensor_slices(source.tasks, index)
        async with aclosing(source.read(slices, OUTPUT_WINDOW_PIECES)) as pieces:
            async for piece in pieces:
                writer.add(piece)
                yield piece
        yield writer.end()
    yield writer.close()


def _tensor_slices(tasks: Sequence[Done], index: int) -> Iterator[_Slice]:
    """A tensor's bytes in order, cut where the stored chunks are."""
    for task, done in enumerate(tasks):
        sizes = _part_sizes(_output(done))
        offset = sum(sizes[:index])
        end = offset + sizes[index]
        while offset < end:
            stop = min(offset - offset % CHUNK_BYTES + CHUNK_BYTES, end)
            yield _Slice(task, offset, stop - offset)
            offset = stop


async def _by_row(source: _Source, writer: CsvWriter, tensor_count: int) -> AsyncGenerator[bytes, None]:
    """The file of a format that holds row after row."""
    yield writer.header()
    wholes = (_Slice(task, 0, _output(done).size_bytes) for task, done in enumerate(source.tasks))
    task = 0
    largest = max(_output(done).size_bytes for done in source.tasks)
    width = min(max(OUTPUT_WINDOW_BYTES // max(largest, 1), 1), OUTPUT_WINDOW_PIECES)
    async with aclosing(source.read(wholes, width)) as contents:
        async for content in contents:
            output = _output(source.tasks[task])
            ends = [sum(_part_sizes(output)[:index]) for index in range(tensor_count + 1)]
            parts = [content[start:end] for start, end in pairwise(ends)]
            lines = writer.lines(output.tensors[0].shape[0], parts)
            while block := await asyncio.to_thread(next, lines, b""):
                yield block
            task += 1


async def _fair_pieces(contents: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The same bytes in pieces neither large nor, but for the last, small."""
    gathered: list[bytes] = []
    size = 0
    async with aclosing(contents):
        async for content in contents:
            gathered.append(content)
            size += len(content)
            if size < _SMALL_PIECE_BYTES:
                continue
            joined = b"".join(gathered)
            if size <= STREAM_PIECE_BYTES:
                yield joined
            else:
                for start in range(0, size, STREAM_PIECE_BYTES):
                    yield joined[start : start + STREAM_PIECE_BYTES]
            gathered, size = [], 0
    if size:
        yield b"".join(gathered)

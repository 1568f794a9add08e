"""The output of a job as one file in input order: assembled while it is sent, verified, in constant memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from math import prod
from typing import Final, NamedTuple, TypeVar, assert_never

from coordinator.core.model import Done, InferSpec, Job, JobState, TaskOutput
from hivefold.blobs.content import read_range
from hivefold.blobs.port import ChunkStore
from hivefold.bus.port import ResultReceiver
from hivefold.datasets.data_types import item_bytes
from hivefold.datasets.writing import CsvWriter, NpyWriter, NpzWriter, TensorLayout, TensorWriter
from hivefold.errors import ConflictError, DataRefusedError, NotFoundError, Reason
from hivefold.limits import CHUNK_BYTES, OUTPUT_WINDOW_BYTES, OUTPUT_WINDOW_PIECES, STREAM_PIECE_BYTES
from hivefold.v1.work_pb2 import Outcome

_FETCH_BYTES: Final = 4 * CHUNK_BYTES
"""Read from a blob at once."""
Item = TypeVar("Item")


class OutputFormat(StrEnum):
    """Format of an output file."""

    NPZ = "NPZ"
    NPY = "NPY"
    CSV = "CSV"


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file on its way: its size (0 where it is not known beforehand) and its bytes, at most 1 MiB at once."""

    total_bytes: int
    pieces: AsyncIterator[bytes]


class _Slice(NamedTuple):
    """A range of one task's output."""

    task: int
    offset: int
    size: int


async def stream_output(
    job: Job, output_format: OutputFormat, results: ResultReceiver, chunks: ChunkStore
) -> OutputFile:
    """The output of an infer job that succeeded, rows in the order of its data set.

    Raises ConflictError when the job has no output (yet) or the format cannot hold it, DataRefusedError when its
    tasks' tensors do not fit together or cannot be written. While streaming: NotFoundError when stored bytes are
    gone, DataRefusedError (DIGEST_MISMATCH) when they are not those that were recorded, BrokerUnavailableError.
    """
    _check_ended(job)
    tasks = [job.done[task] for task in range(job.planned)]
    # A million tasks take seconds.
    layouts = await asyncio.to_thread(_layouts, tasks)
    source = _Source(job, tasks, results, chunks)
    match output_format:
        case OutputFormat.NPZ:
            npz = NpzWriter(layouts)
            return OutputFile(npz.total_bytes, _whole_pieces(_by_tensor(source, npz, len(layouts))))
        case OutputFormat.NPY:
            npy = NpyWriter(layouts)
            return OutputFile(npy.total_bytes, _whole_pieces(_by_tensor(source, npy, len(layouts))))
        case OutputFormat.CSV:
            _check_rows(layouts)
            return OutputFile(0, _whole_pieces(_by_row(source, CsvWriter(layouts), len(layouts))))
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
                f"The output of task {task} has the tensors {found}, that of task 0 {expected}: no one array holds both. "
                "Use a model whose output shape does not depend on the values.",
                reason=Reason.SHAPE_MISMATCH,
            )
        if sum(_part_sizes(output)) != output.size_bytes:
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

    def __init__(self, job: Job, tasks: Sequence[Done], results: ResultReceiver, chunks: ChunkStore) -> None:
        self.tasks = tasks
        self._job = job
        self._results = results
        self._chunks = chunks

    async def read(self, part: _Slice) -> bytes:
        """A range of a task's output. Raises NotFoundError, DataRefusedError, BrokerUnavailableError."""
        output = _output(self.tasks[part.task])
        try:
            if output.blob is None:
                return (await self._inline(part.task, output))[part.offset : part.offset + part.size]
            return await read_range(self._chunks, output.blob.root, part.offset, part.size)
        except NotFoundError as error:
            raise NotFoundError(
                f"The output of task {part.task} of job {self._job.job_id} is no longer stored. Submit the job again.",
                metadata={"job_id": self._job.job_id, "task": str(part.task)},
            ) from error

    async def _inline(self, task: int, output: TaskOutput) -> bytes:
        message = await self._results.get(self.tasks[task].result_sequence)
        outcome = Outcome.FromString(message.data)
        if hashlib.sha256(outcome.inline_output).hexdigest() != output.digest:
            raise _mismatch(task, "does not have the digest that was recorded")
        return outcome.inline_output


async def _by_tensor(source: _Source, writer: TensorWriter, tensor_count: int) -> AsyncIterator[bytes]:
    """The file of a format that holds tensor after tensor."""
    for index in range(tensor_count):
        yield writer.begin(index)
        async with aclosing(_ahead(_tensor_slices(source.tasks, index), source.read, lambda part: part.size)) as pieces:
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
            stop = min(offset - offset % _FETCH_BYTES + _FETCH_BYTES, end)
            yield _Slice(task, offset, stop - offset)
            offset = stop


async def _by_row(source: _Source, writer: CsvWriter, tensor_count: int) -> AsyncIterator[bytes]:
    """The file of a format that holds row after row."""
    yield writer.header()
    wholes = (_Slice(task, 0, _output(done).size_bytes) for task, done in enumerate(source.tasks))
    task = 0
    async with aclosing(_ahead(wholes, source.read, lambda part: part.size)) as contents:
        async for content in contents:
            output = _output(source.tasks[task])
            ends = [sum(_part_sizes(output)[:index]) for index in range(tensor_count + 1)]
            parts = [content[start:end] for start, end in pairwise(ends)]
            lines = writer.lines(output.tensors[0].shape[0], parts)
            while block := await asyncio.to_thread(next, lines, b""):
                yield block
            task += 1


async def _ahead(
    items: Iterator[Item], fetch: Callable[[Item], Awaitable[bytes]], size: Callable[[Item], int]
) -> AsyncGenerator[bytes]:
    """Fetches items in order, a bounded window of them at once."""
    waiting: deque[tuple[int, asyncio.Task[bytes]]] = deque()
    bytes_ahead = 0
    item = next(items, None)
    try:
        while item is not None or waiting:
            room = len(waiting) < OUTPUT_WINDOW_PIECES and (bytes_ahead < OUTPUT_WINDOW_BYTES or not waiting)
            if item is not None and room:
                bytes_ahead += size(item)
                waiting.append((size(item), asyncio.ensure_future(fetch(item))))
                item = next(items, None)
                continue
            done_bytes, fetching = waiting[0]
            content = await fetching
            waiting.popleft()
            bytes_ahead -= done_bytes
            yield content
    finally:
        for _, fetching in waiting:
            fetching.cancel()
        await asyncio.gather(*(fetching for _, fetching in waiting), return_exceptions=True)


async def _whole_pieces(contents: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces of STREAM_PIECE_BYTES and a last shorter one."""
    buffered: list[bytes] = []
    size = 0
    async for content in contents:
        buffered.append(content)
        size += len(content)
        if size < STREAM_PIECE_BYTES:
            continue
        joined = memoryview(b"".join(buffered))
        whole = size - size % STREAM_PIECE_BYTES
        for start in range(0, whole, STREAM_PIECE_BYTES):
            yield bytes(joined[start : start + STREAM_PIECE_BYTES])
        buffered, size = [bytes(joined[whole:])], size - whole
    if size:
        yield b"".join(buffered)

"""One infer attempt: fetch the rows, compute, store the output. The three overlap between attempts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field

from actors.bridge import ask
from actors.model import CancelFlag, Inferred, InferRows
from actors.reader import ReadRange
from actors.runtime import ActorRef
from actors.tensors import Layout
from hivefold.blobs.files import room_for_range
from hivefold.blobs.sealing import DataKey, job_key_id
from hivefold.clock import Clock
from hivefold.errors import DataRefusedError, HivefoldError, Reason
from hivefold.limits import ATTEMPT_MS, INLINE_OUTPUT_BYTES, NODE_PREFETCH, PROBES_ASK_MS, SHARD_INPUT_BYTES
from hivefold.observe import span
from hivefold.v1 import job_pb2, work_pb2
from node.buffers import RowBuffers
from node.content import Content
from node.core import Attempt
from node.models import ModelShelf, Place
from node.wire import Output, data_type_name, data_type_number


@dataclass(slots=True)
class Timing:
    """When the attempt had the runtime to itself, as far as it is known."""

    start_us: int
    duration_us: int = 0


@dataclass(slots=True)
class InferRunner:
    """Runs infer attempts; at most `slots` compute at a time."""

    content: Content
    shelf: ModelShelf
    reader: ActorRef[ReadRange, memoryview]
    clock: Clock
    slots: int
    compute: asyncio.Semaphore = field(init=False)
    _fetching: asyncio.Semaphore = field(init=False)
    _buffers: RowBuffers = field(init=False)
    _free_us: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.compute = asyncio.Semaphore(self.slots)
        self._fetching = asyncio.Semaphore(self.slots)  # what is computed first is to be there first
        self._buffers = RowBuffers(self.slots + NODE_PREFETCH)

    async def run(self, work: work_pb2.WorkBatch, attempt: Attempt, cancel: CancelFlag, timing: Timing) -> Output:
        """What the attempt produced; `timing` is kept up to date. Raises HivefoldError with the cause of a failure."""
        place = await self.shelf.take(work.model)
        timing.start_us = self.clock.now_us()  # a model's loading says nothing of its speed
        try:
            async with self._fetched(work, attempt) as rows:
                request = _request(work.spec.infer, attempt, rows, cancel)
                async with self.compute:
                    # An attempt that found its rows waiting began when the one before it ended.
                    timing.start_us = max(timing.start_us, self._free_us)
                    inferred = await self._infer(place, request, _deadline_ms(work, self.clock.now_us()))
                    self._free_us = self.clock.now_us()
                    timing.duration_us = self._free_us - timing.start_us
        finally:
            self.shelf.give(place)
        with span("store"):
            key = DataKey(job_key_id(work.job_id), work.job_key) if work.job_key else None
            return await self._stored(inferred, key)

    @asynccontextmanager
    async def _fetched(self, work: work_pb2.WorkBatch, attempt: Attempt) -> AsyncIterator[memoryview]:
        """The attempt's rows, in memory that is given back after the block."""
        data_set = work.spec.infer.data_set
        row_bytes = _layout(data_set).row_bytes
        offset = data_set.data_offset_bytes + attempt.first_row * row_bytes
        size = attempt.row_count * row_bytes
        if not 0 < size <= SHARD_INPUT_BYTES:
            raise DataRefusedError(
                f"{attempt.row_count} rows of {row_bytes} bytes are no shard that a node takes",
                reason=Reason.LIMIT_EXCEEDED,
                metadata={"limit": "SHARD_INPUT_BYTES", "value": str(SHARD_INPUT_BYTES)},
            )
        with ExitStack() as held:
            async with self._fetching:
                with span("fetch"):
                    rows = await self._read(data_set, offset, size, work.data_key, held)
            yield rows

    async def _read(
        self, data_set: job_pb2.DataSet, offset: int, size: int, secret: bytes, held: ExitStack
    ) -> memoryview:
        if data_set.WhichOneof("location") == "file":
            manifest = await self.content.manifest(data_set.file.content.root)
            buffer = held.enter_context(self._buffers.lent(room_for_range(manifest, size)))
            request = ReadRange(data_set.file.path, manifest, offset, size, buffer, secret)
            return await ask(self.reader, request, deadline_ms=PROBES_ASK_MS)
        rows = memoryview(held.enter_context(self._buffers.lent(size)))[:size]
        await self.content.read_into(data_set.blob.root, offset, rows, secret)
        return rows

    async def _infer(self, place: Place, request: InferRows, deadline_ms: int) -> Inferred:
        reply = await self.shelf.run(place, request, deadline_ms=deadline_ms)
        assert isinstance(reply, Inferred)
        return reply

    async def _stored(self, inferred: Inferred, key: DataKey | None) -> Output:
        digest = key.digest(inferred.digest) if key else inferred.digest
        output = work_pb2.TaskOutput(digest=digest, size_bytes=len(inferred.data))
        for tensor in inferred.tensors:
            output.tensors.add(name=tensor.name, data_type=data_type_number(tensor.data_type), shape=tensor.shape)
        if len(inferred.data) <= INLINE_OUTPUT_BYTES:
            return Output(output, key.seal_inline(inferred.data) if key else bytes(inferred.data))
        output.blob.CopyFrom(await self.content.store(inferred.data, key))
        return Output(output)


def _layout(data_set: job_pb2.DataSet) -> Layout:
    return Layout(data_type_name(data_set.data_type), tuple(data_set.row_shape))


def _request(spec: job_pb2.InferSpec, attempt: Attempt, rows: memoryview, cancel: CancelFlag) -> InferRows:
    return InferRows(
        data=rows,
        layout=_layout(spec.data_set),
        first_row=attempt.first_row,
        row_count=attempt.row_count,
        outputs=tuple(spec.outputs),
        nan_allowed=spec.nan_policy == job_pb2.NAN_POLICY_ALLOW,
        batch_rows=spec.batch_rows,
        cancel=cancel,
    )


def _deadline_ms(work: work_pb2.WorkBatch, now_us: int) -> int:
    if not work.HasField("deadline_time"):
        return ATTEMPT_MS
    left_ms = (work.deadline_time.ToMicroseconds() - now_us) // 1000
    if left_ms <= 0:
        raise HivefoldError("the job's deadline passed before the attempt began", reason=Reason.DEADLINE_EXCEEDED)
    return min(left_ms, ATTEMPT_MS)

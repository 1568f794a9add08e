"""Models and data of the simulated fleet: actors without threads, and chunks behind each machine's connection."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np

from actors.model import Inferred, InferRows, Loaded, LoadModel, ModelBehavior, ModelMessage, ModelReply, OpenModel, Run
from actors.probe import ProbesDone, RunProbes
from actors.runtime import BehaviorFailedError, ReplyCallback
from actors.together import InferBatch
from coordinator.core.model import BlobRef, DataSet, InferSpec, Job, Model, TensorSpec
from hivefold.blobs.content import upload_bytes
from hivefold.blobs.memory import MemoryChunks
from hivefold.blobs.port import ChunkStore
from hivefold.bus.memory import MemoryConnection
from hivefold.clock import Clock
from hivefold.errors import HivefoldError, Reason
from hivefold.ids import Digest, ModelName
from hivefold.models import TensorFacts
from hivefold.v1 import model_pb2
from node.content import Content
from node.lanes import Lane, Lanes
from node.models import ModelActor, ModelShelf

ROWS: Final = 3000
"""Rows of the one data set that all jobs take parts of; each row is two numbers, the first is its index."""
_ROW_BYTES: Final = 8
WIDTHS: Final = {"narrow": 1, "wide": 40, "first": 2, "second": 3, "third": 4}
"""Model files by the width of their output: each repeats a row's first number; wide outputs do not fit inline."""
_LASTING: Final = ("narrow", "wide")
"""Those that are registered once, as models of their own; of the others people make versions."""
NAMES: Final = (ModelName("alpha"), ModelName("beta"))
"""Models that people add versions to, name, keep and remove."""
VERSIONS: Final = ("first", "second", "third")
"""Files that these versions have."""


@dataclass(frozen=True, slots=True)
class Fixtures:
    """What is stored before a run: the models and the data set."""

    models: tuple[Model, ...]
    data: BlobRef

    def spec(self, draw: random.Random, names: Sequence[str]) -> InferSpec:
        """A job on some of the rows, at times for a model that is called by one of these names."""
        first = draw.randrange(ROWS)
        data_set = DataSet(
            self.data, "", "FP32", (2,), draw.randint(1, ROWS - first), data_offset_bytes=first * _ROW_BYTES
        )
        model = draw.choice(self.models).ref
        return InferSpec(draw.choice(names) if names and draw.random() < 0.5 else model, data_set)


def file_of(content: str) -> bytes:
    """A model file."""
    return f"the file of {content}".encode()


_WIDTH_OF: Final = {hashlib.sha256(file_of(content)).hexdigest(): width for content, width in WIDTHS.items()}


async def stored_model(chunks: ChunkStore, name: ModelName, content: str, version: int = 0) -> Model:
    """Stores a model file; what is to be registered then."""
    file = file_of(content)
    artifact = await upload_bytes(chunks, file)
    return Model(
        name,
        version,
        Digest(hashlib.sha256(file).hexdigest()),
        BlobRef(Digest(artifact.root), artifact.size_bytes),
        "onnxruntime_onnx",
        (TensorSpec("x", "FP32", (-1, 2)),),
        (TensorSpec("y", "FP32", (-1, WIDTHS[content])),),
    )


async def stored_fixtures(chunks: MemoryChunks) -> Fixtures:
    """Stores the models and the data set."""
    rows = np.arange(2 * ROWS, dtype="<f4").reshape(ROWS, 2)
    rows[:, 0] = np.arange(ROWS)
    data = await upload_bytes(chunks, rows.tobytes())
    models = [await stored_model(chunks, ModelName(name), name, 1) for name in _LASTING]
    return Fixtures(tuple(models), BlobRef(Digest(data.root), data.size_bytes))


def expected_output(job: Job) -> bytes:
    """The rows that a job's output must hold, in order."""
    assert isinstance(job.spec.kind, InferSpec)
    assert job.model is not None
    first = job.spec.kind.data_set.data_offset_bytes // _ROW_BYTES
    return _output(np.arange(first, first + job.spec.kind.data_set.row_count), _WIDTH_OF[job.model.digest])


def _output(numbers: np.ndarray[tuple[int, ...], np.dtype[np.generic]], width: int) -> bytes:
    return np.repeat(numbers.astype("<f4"), width).tobytes()


class SimChunks:
    """hivefold.blobs.port.ChunkStore over one machine's connection."""

    def __init__(self, connection: MemoryConnection, chunks: MemoryChunks, draw: random.Random) -> None:
        self._connection = connection
        self._chunks = chunks
        self._draw = draw

    async def put(self, key: str, data: bytes) -> None:
        """Stores a chunk."""
        await self._take_time()
        await self._chunks.put(key, data)
        self._connection.require_up()

    async def get(self, key: str) -> bytes:
        """Reads a chunk."""
        await self._take_time()
        return await self._chunks.get(key)

    async def has(self, key: str) -> bool:
        """Looks for a chunk."""
        await self._take_time()
        return await self._chunks.has(key)

    async def delete(self, key: str) -> None:
        """Removes a chunk."""
        await self._take_time()
        await self._chunks.delete(key)

    async def _take_time(self) -> None:
        await asyncio.sleep(self._draw.expovariate(500.0))
        self._connection.require_up()


class ScriptedProber:
    """The prober's actor without a thread: it answers at once, or fails as it was drawn."""

    name = "prober"

    def __init__(self, draw: random.Random, failure_ratio: float) -> None:
        self._draw = draw
        self._failure_ratio = failure_ratio

    def ask(self, _message: RunProbes, reply: ReplyCallback) -> None:
        """Answers one message."""
        if self._draw.random() < self._failure_ratio:
            reply(None, HivefoldError("the runtime failed as it was drawn", reason=Reason.RUNTIME_FAILED))
        else:
            reply(ProbesDone(), None)


class ScriptedModel:
    """What keeps a model, without a thread, and the model itself: it fails or dies as it was drawn."""

    def __init__(self, model: model_pb2.Model, draw: random.Random, failure_ratio: float) -> None:
        self.name = f"model-{model.name}"
        self._width = _WIDTH_OF[model.digest]
        self._draw = draw
        self._failure_ratio = failure_ratio

    def ask(self, message: ModelMessage, reply: ReplyCallback) -> None:
        """Answers one message, after a while."""
        _reply_later(self._draw, 0.2, reply, lambda: self._kept(message))

    def run(self, message: InferRows | InferBatch) -> Inferred:
        """The output for the rows."""
        assert isinstance(message, InferRows)
        _fail(self._draw, self._failure_ratio / 2)
        rows = np.frombuffer(message.data, "<f4").reshape(message.row_count, 2)
        data = _output(rows[:, 0], self._width)
        facts = TensorFacts("y", "FP32", (message.row_count, self._width))
        return Inferred((facts,), data, hashlib.sha256(data).hexdigest(), 1000)

    def stop(self) -> None:
        """Nothing to release."""

    def _kept(self, message: ModelMessage) -> ModelReply:
        _fail(self._draw, self._failure_ratio / 2)
        return Loaded(message.digest, (), (), cast(OpenModel, self)) if isinstance(message, LoadModel) else None


class ScriptedLane:
    """A lane without a thread: rows take virtual time."""

    name = "lane"

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw

    def ask(self, message: Run, reply: ReplyCallback) -> None:
        """Answers one message, after a while."""
        assert isinstance(message.what, InferRows)
        # The rows are read at the end: their memory must still be theirs then.
        _reply_later(self._draw, message.what.row_count * 0.0005, reply, lambda: message.model.run(message.what))

    def stop(self) -> None:
        """Nothing to release."""


def _reply_later(draw: random.Random, seconds: float, reply: ReplyCallback, answer: Callable[[], object]) -> None:
    def answered() -> None:
        try:
            value = answer()
        except HivefoldError as error:
            reply(None, error)
        else:
            reply(value, None)

    asyncio.get_running_loop().call_later(draw.expovariate(1 / seconds), answered)


def _fail(draw: random.Random, ratio: float) -> None:
    if draw.random() < ratio:
        raise BehaviorFailedError("the actor died as it was drawn")


class SimLanes(Lanes):
    """Lanes without threads."""

    def __init__(self, draw: random.Random, slots: int) -> None:
        super().__init__(slots)
        self._draw = draw

    def _open(self) -> Lane:
        return cast(Lane, ScriptedLane(self._draw))


class SimShelf(ModelShelf):
    """The node's models without files and threads."""

    def __init__(self, content: Content, clock: Clock, draw: random.Random, failure_ratio: float, slots: int) -> None:
        super().__init__(Path("nowhere"), content, _no_behavior, clock=clock, lanes=SimLanes(draw, slots))
        self._draw = draw
        self._failure_ratio = failure_ratio

    async def _fetched(self, model: model_pb2.Model) -> Path:
        file = b"".join([piece async for piece in self._content.stream(model.artifact.root)])
        assert hashlib.sha256(file).hexdigest() == model.digest
        return Path(f"{model.digest}.onnx")

    def _open_keeper(self, model: model_pb2.Model) -> ModelActor:
        return cast(ModelActor, ScriptedModel(model, self._draw, self._failure_ratio))


def _no_behavior() -> ModelBehavior:
    raise AssertionError("the simulated shelf opens actors of its own")

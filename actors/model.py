"""Models in memory: one behaviour loads a model and keeps it, others run it. Every tensor is checked before that.

A node's lanes run whatever model comes next: a few threads that are always warm. With threads of its own for each
model eight small models did 0.7 of what the same threads do for all of them (ADR 21).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from actors.footprint import Footprint, WeighedSession
from actors.session import Backend, Session
from actors.steady import is_steady
from actors.tensors import Array, Layout, as_rows, element_type, first_nan_row, row_major
from actors.together import Batched, InferBatch, Together
from actors.verified import verified
from hivefold.clock import stopwatch_ns
from hivefold.errors import DataRefusedError, HivefoldError, Reason
from hivefold.limits import SHARD_OUTPUT_BYTES
from hivefold.models import TensorFacts, inspect_onnx
from hivefold.observe import span

_BATCH_ROWS: Final = 1024
"""Rows given to the runtime at once when nobody says how many: enough to hide the cost of the call."""
_BATCH_BYTES: Final = 16 * 1024 * 1024
_BATCH_WORK: Final = 1 << 34
_BATCH_ROWS_LARGE: Final = 256
"""Weight bytes times rows of a batch, and the rows below which a large model would wait for its own weights.

A batch cannot be interrupted: it must end soon enough when the attempt is given up.
"""


@dataclass(slots=True)
class CancelFlag:
    """Set by the loop, read by the behaviour between two batches."""

    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class LoadModel:
    """Load the file at `path`, whose SHA-256 is `digest`. Loading it again does nothing.

    `footprint` is written while the model is loaded, and by whoever runs it.
    """

    path: Path
    digest: str
    footprint: Footprint = field(default_factory=Footprint)


@dataclass(frozen=True, slots=True)
class UnloadModel:
    """Release the model."""


@dataclass(frozen=True, slots=True)
class InferRows:
    """Run rows through the model: `data` holds whole rows, row-major and little-endian.

    `first_row` only names rows in errors. No `outputs` means all of them; `batch_rows` 0 lets the
    behaviour choose.
    """

    data: bytes | bytearray | memoryview
    layout: Layout
    first_row: int
    row_count: int
    outputs: tuple[str, ...] = ()
    nan_allowed: bool = False
    batch_rows: int = 0
    cancel: CancelFlag | None = None


@dataclass(frozen=True, slots=True)
class Inferred:
    """Outputs: name, element type and shape of each, rows first; their bytes one after the other."""

    tensors: tuple[TensorFacts, ...]
    data: bytes
    digest: str
    compute_us: int
    """Time inside the runtime in microseconds."""


class OpenModel:
    """A loaded model, to be run from any thread and from several at once while somebody keeps it loaded."""

    def __init__(self, session: Session, parameter_bytes: int = 0) -> None:
        self._session = session
        self.together = Together(session)
        """Runs batches."""
        self._parameter_bytes = parameter_bytes

    def run(self, message: InferRows | InferBatch) -> Inferred | Batched:
        """Infers. Raises DataRefusedError with the reason."""
        return self.together.run(message) if isinstance(message, InferBatch) else self._infer(message)

    def _infer(self, message: InferRows) -> Inferred:
        session = self._session
        target = _single_input(session)
        message.layout.require_fits(target)
        outputs = _selected(session, message.outputs)
        rows = as_rows(message.data, message.layout, message.row_count)
        if not message.nan_allowed and (row := first_nan_row(rows)) is not None:
            raise DataRefusedError(
                f"row {message.first_row + row} holds NaN; clean the data, or allow NaN in the job",
                reason=Reason.NAN_FOUND,
                metadata={"row": str(message.first_row + row)},
            )
        began_ns = stopwatch_ns()
        with span("infer", attributes={"hivefold.rows": message.row_count}):
            parts = self._run(session, target, rows, outputs, message)
        compute_us = (stopwatch_ns() - began_ns) // 1000
        return _collected(outputs, parts, message.row_count, compute_us)

    def _run(
        self, session: Session, target: TensorFacts, rows: Array, outputs: tuple[str, ...], message: InferRows
    ) -> list[list[Array]]:
        """The outputs of each batch in order."""
        fixed = max(0, target.shape[0])
        size = fixed or message.batch_rows or _batch_rows(rows, self._parameter_bytes)
        parts: list[list[Array]] = []
        total = 0
        for start in range(0, len(rows), size):
            if message.cancel is not None and message.cancel.reason is not None:
                raise HivefoldError("the attempt was given up while it ran", reason=message.cancel.reason)
            batch = rows[start : start + size]
            results = session.run(outputs, {target.name: _padded(batch, fixed)})
            parts.append([_per_row(name, result, batch, fixed) for name, result in zip(outputs, results, strict=True)])
            total = _total_within_limit(total, parts[-1], len(rows))
        return parts


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is loaded."""

    digest: str
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    model: OpenModel
    direct: Together | None = None
    """For a caller that runs batches in its own thread while it has the model; None where nobody can tell how long."""


@dataclass(frozen=True, slots=True)
class Run:
    """Run this through a model that is loaded, and stays so until the reply."""

    model: OpenModel
    what: InferRows | InferBatch


ModelMessage: TypeAlias = LoadModel | UnloadModel
ModelReply: TypeAlias = Loaded | None


class ModelBehavior:
    """Loads a model and keeps it, one at most."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._session: Session | None = None
        self._loaded: Loaded | None = None

    def start(self) -> None:
        """Nothing: a model is loaded by its message, so that a bad file is an answer and no failure."""

    def receive(self, message: ModelMessage) -> ModelReply:
        """Loads or unloads. Raises DataRefusedError with the reason."""
        match message:
            case LoadModel():
                return self._load(message)
            case UnloadModel():
                self.stop()
                return None

    def stop(self) -> None:
        """Releases the model."""
        session, self._session, self._loaded = self._session, None, None
        if session is not None:
            session.close()

    def _load(self, message: LoadModel) -> Loaded:
        if self._loaded is not None and self._loaded.digest == message.digest:
            return self._loaded
        self.stop()
        with verified(message.path, message.digest) as file:
            facts = inspect_onnx(file)
            with message.footprint.weigh_load():
                opened = self._backend.open(file)
        session = self._session = WeighedSession(opened, message.footprint)
        model = OpenModel(session, facts.parameter_bytes)
        direct = model.together if is_steady(facts.operators) else None
        self._loaded = Loaded(message.digest, session.inputs, session.outputs, model, direct)
        return self._loaded


class LaneBehavior:
    """Runs one batch after the other, each through the model that comes with it."""

    def start(self) -> None:
        """Nothing."""

    def receive(self, message: Run) -> Inferred | Batched:
        """Infers. Raises DataRefusedError with the reason."""
        return message.model.run(message.what)

    def stop(self) -> None:
        """Nothing: the models are not its own."""


def _single_input(session: Session) -> TensorFacts:
    if len(session.inputs) != 1:
        names = ", ".join(tensor.name for tensor in session.inputs)
        raise DataRefusedError(
            f"the model has {len(session.inputs)} inputs ({names}), a data set feeds exactly one; "
            "export the model with one input",
            reason=Reason.SHAPE_MISMATCH,
        )
    target = session.inputs[0]
    if not target.shape:
        raise DataRefusedError(
            f"the model's input {target.name!r} is a single value without a row dimension; export it with one",
            reason=Reason.SHAPE_MISMATCH,
        )
    return target


def _selected(session: Session, wanted: tuple[str, ...]) -> tuple[str, ...]:
    known = {tensor.name: tensor for tensor in session.outputs}
    for name in wanted:
        if name not in known:
            raise DataRefusedError(
                f"the model has no output {name!r}; it has {', '.join(known)}", reason=Reason.INVALID_ARGUMENT
            )
    return wanted or tuple(known)


def _batch_rows(rows: Array, parameter_bytes: int) -> int:
    """By sizes alone and not by measured time: the same rows are cut the same way on every node."""
    row_bytes = max(1, rows.nbytes // len(rows))
    by_work = max(_BATCH_ROWS_LARGE, _BATCH_WORK // max(1, parameter_bytes))
    return max(1, min(_BATCH_ROWS, by_work, _BATCH_BYTES // row_bytes))


def _padded(batch: Array, fixed: int) -> Array:
    """The batch, filled up with zeros where the model takes exactly `fixed` rows."""
    if not fixed or len(batch) == fixed:
        return batch
    import numpy as np

    return np.concatenate([batch, np.zeros((fixed - len(batch), *batch.shape[1:]), batch.dtype)])


def _per_row(name: str, result: Array, batch: Array, fixed: int) -> Array:
    """The output's entries of the batch's rows."""
    if not result.ndim or len(result) != (fixed or len(batch)):
        raise DataRefusedError(
            f"output {name!r} has shape {list(result.shape)} for {len(batch)} rows; "
            "each output needs one entry per row: ask only for outputs that have",
            reason=Reason.MODEL_INVALID,
        )
    return result[: len(batch)]


def _total_within_limit(total: int, results: list[Array], rows: int) -> int:
    """The bytes of output so far, or DataRefusedError when they are more than one task may give."""
    total += sum(result.nbytes for result in results)
    if total > SHARD_OUTPUT_BYTES:
        raise DataRefusedError(
            f"the output of {rows} rows is larger than {SHARD_OUTPUT_BYTES} bytes; "
            "ask for fewer outputs, or for shorter tasks",
            reason=Reason.LIMIT_EXCEEDED,
            metadata={"limit": "SHARD_OUTPUT_BYTES", "value": str(SHARD_OUTPUT_BYTES)},
        )
    return total


def _collected(outputs: tuple[str, ...], parts: list[list[Array]], row_count: int, compute_us: int) -> Inferred:
    tensors: list[TensorFacts] = []
    pieces: list[memoryview] = []
    for index, name in enumerate(outputs):
        arrays = [part[index] for part in parts]
        row_shape = arrays[0].shape[1:]
        if any(array.shape[1:] != row_shape for array in arrays):
            raise DataRefusedError(
                f"output {name!r} has rows of different shapes; they cannot be one array", reason=Reason.MODEL_INVALID
            )
        tensors.append(TensorFacts(name, element_type(name, arrays[0].dtype), (row_count, *row_shape)))
        pieces += [row_major(array) for array in arrays]
    data = b"".join(pieces)
    return Inferred(tuple(tensors), data, hashlib.sha256(data).hexdigest(), compute_us)

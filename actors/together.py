"""Requests run through a model together, each answered for itself: one that the runtime refuses fails alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from actors.session import Session
from actors.tensors import Array
from hivefold.clock import stopwatch_ns
from hivefold.element_types import DESCRIPTIONS
from hivefold.errors import DataRefusedError, HivefoldError, Reason
from hivefold.models import TensorFacts
from hivefold.oip.responses import OutputTensor
from hivefold.oip.tensors import Raw, join_bytes, refused, split_bytes

if TYPE_CHECKING:
    import numpy as np

_COPIED_BYTES: Final = 64 * 1024
"""Outputs below this size are copied at once: a view on them would cost more."""
_TOLERANCE: Final = {"FP16": 1e-2, "BF16": 1e-1}
_TOLERANCE_USUAL: Final = 1e-3
"""How far rounding may take a batch's outputs from those of its parts: kernels differ with the number of rows."""


class FeedTensor(NamedTuple):
    """One input of a request: its shape and raw bytes, checked against the model."""

    shape: tuple[int, ...]
    data: Raw


class Feed(NamedTuple):
    """A request: an input for each that the model has, in the model's order; `rows` along the batch axis."""

    rows: int
    tensors: tuple[FeedTensor, ...]


Answer: TypeAlias = tuple[OutputTensor, ...] | HivefoldError


class InferBatch(NamedTuple):
    """Run these requests; of several, all inputs have the batch axis first and the same shape after it."""

    requests: tuple[Feed, ...]
    outputs: tuple[str, ...]


class Batched(NamedTuple):
    """An answer for each request in order, and where the time went, in nanoseconds."""

    answers: tuple[Answer, ...]
    runs: int
    input_ns: int
    infer_ns: int
    output_ns: int
    apart: bool = False
    """Whether the model turned out to mix the rows of a batch: from now on requests must be run one by one."""


class Together:
    """Runs batches through one session. The first batch is also run in parts: a model that mixes rows shows then."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._inputs = [(facts, _type(facts)) for facts in session.inputs]
        self._outputs = {facts.name: (facts, _type(facts)) for facts in session.outputs}
        self._trusted = False

    def run(self, message: InferBatch) -> Batched:
        """The answers. Raises MemoryError, and nothing else, when the runtime has no memory left."""
        requests = message.requests
        if len(requests) == 1:
            return self._one(requests[0], message.outputs)
        try:
            batched = self._all(requests, message.outputs)
        except HivefoldError:
            return self._one_by_one(requests, message.outputs)
        if batched is None or not (self._trusted or self._same(message, batched)):
            return self._one_by_one(requests, message.outputs)._replace(apart=True)
        self._trusted = True
        return batched

    def _one(self, request: Feed, outputs: tuple[str, ...]) -> Batched:
        try:
            batched = self._all((request,), outputs)
        except HivefoldError as error:
            return Batched((error,), 1, 0, 0, 0)
        assert batched is not None
        return batched

    def _one_by_one(self, requests: tuple[Feed, ...], outputs: tuple[str, ...]) -> Batched:
        parts = [self._one(request, outputs) for request in requests]
        return Batched(
            tuple(part.answers[0] for part in parts),
            len(parts),
            sum(part.input_ns for part in parts),
            sum(part.infer_ns for part in parts),
            sum(part.output_ns for part in parts),
        )

    def _all(self, requests: tuple[Feed, ...], outputs: tuple[str, ...]) -> Batched | None:
        """None when the outputs cannot be told apart by rows. Raises HivefoldError when the runtime refuses."""
        began_ns = stopwatch_ns()
        feeds: dict[str, Array] = {}
        for index, (facts, dtype) in enumerate(self._inputs):
            feeds[facts.name] = _array(facts, dtype, [request.tensors[index] for request in requests])
        fed_ns = stopwatch_ns()
        arrays = self._session.run(outputs, feeds)
        ran_ns = stopwatch_ns()
        rows = [request.rows for request in requests]
        total = sum(rows)
        columns: list[list[OutputTensor]] = []
        for name, array in zip(outputs, arrays, strict=True):
            if len(rows) > 1 and (not array.ndim or len(array) != total):
                return None
            columns.append(_split(self._outputs[name], array, rows))
        answers = tuple(zip(*columns, strict=True))
        return Batched(answers, 1, fed_ns - began_ns, ran_ns - fed_ns, stopwatch_ns() - ran_ns)

    def _same(self, message: InferBatch, batched: Batched) -> bool:
        """Whether the first and the last request get the same answers alone."""
        return all(
            self._like(message.outputs, self._one(message.requests[index], message.outputs).answers[0], answer)
            for index, answer in ((0, batched.answers[0]), (-1, batched.answers[-1]))
        )

    def _like(self, outputs: tuple[str, ...], alone: Answer, batched: Answer) -> bool:
        import numpy as np

        if isinstance(alone, HivefoldError) or isinstance(batched, HivefoldError):
            return False
        for name, one, other in zip(outputs, alone, batched, strict=True):
            data_type = self._outputs[name][0].data_type
            if one.shape != other.shape:
                return False
            if data_type not in {"FP16", "BF16", "FP32", "FP64"}:
                if bytes(one.data) != bytes(other.data):
                    return False
                continue
            near = _TOLERANCE.get(data_type, _TOLERANCE_USUAL)
            first, second = (_floats(data_type, tensor.data) for tensor in (one, other))
            if not np.allclose(first, second, rtol=near, atol=near, equal_nan=True):
                return False
        return True


def _type(facts: TensorFacts) -> np.dtype[Any] | None:
    """The elements of a tensor as NumPy names them, in the order in which they travel; None for texts."""
    import numpy as np

    return None if facts.data_type == "BYTES" else np.dtype(_description(facts.data_type))


def _array(target: TensorFacts, dtype: np.dtype[Any] | None, parts: list[FeedTensor]) -> Array:
    """The parts one after the other, without a copy where there is one part and it is aligned."""
    first = parts[0]
    if len(parts) == 1:
        data, shape = first.data, first.shape
    else:
        data = b"".join([part.data for part in parts])
        shape = (sum([part.shape[0] for part in parts]), *first.shape[1:])
    if dtype is None:
        return _texts(target.name, data, shape)
    import numpy as np

    array = np.frombuffer(data, dtype).reshape(shape)
    return array if array.flags.aligned else array.copy()


def _description(data_type: str) -> str:
    return "<u2" if data_type == "BF16" else DESCRIPTIONS[data_type]


def _texts(name: str, data: Raw, shape: tuple[int, ...]) -> Array:
    import numpy as np

    elements = split_bytes(data)
    array: Array = np.empty(len(elements), dtype=object)
    try:
        array[:] = [element.decode() for element in elements]
    except UnicodeDecodeError as error:
        raise refused(
            "inputs", f"{name!r} holds bytes that are no UTF-8 text, and the runtime takes no others"
        ) from error
    return array.reshape(shape)


def _split(expected: tuple[TensorFacts, np.dtype[Any] | None], array: Array, rows: list[int]) -> list[OutputTensor]:
    """The output of each request: the whole array for one, its rows for several."""
    facts, dtype = expected
    if array.dtype.kind in "OSU":
        return [OutputTensor(part.shape, _text_bytes(part)) for part in _parts(array, rows)]
    if array.dtype != dtype:
        raise DataRefusedError(
            f"output {facts.name!r} came as {array.dtype} and is declared as {facts.data_type}; export the model again",
            reason=Reason.MODEL_INVALID,
        )
    data = _flat(array)
    if len(rows) == 1:
        return [OutputTensor(array.shape, data)]
    row_shape = array.shape[1:]
    row_bytes = len(data) // len(array) if len(array) else 0
    found: list[OutputTensor] = []
    start = 0
    for count in rows:
        end = start + count * row_bytes
        found.append(OutputTensor((count, *row_shape), data[start:end]))
        start = end
    return found


def _flat(array: Array) -> Raw:
    if array.nbytes < _COPIED_BYTES:
        return array.tobytes()
    import numpy as np

    return np.ascontiguousarray(array).reshape(-1).view("u1").data


def _parts(array: Array, rows: list[int]) -> list[Array]:
    if len(rows) == 1:
        return [array]
    found: list[Array] = []
    start = 0
    for count in rows:
        found.append(array[start : start + count])
        start += count
    return found


def _text_bytes(array: Array) -> bytes:
    return join_bytes(
        element if isinstance(element, bytes) else str(element).encode(errors="surrogateescape")
        for element in array.ravel()
    )


def _floats(data_type: str, data: Raw) -> Array:
    import numpy as np

    if data_type == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, DESCRIPTIONS[data_type])

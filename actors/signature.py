"""What a model takes and gives, against which every request is checked before a runtime sees it. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from actors.together import Feed, FeedTensor
from hivefold.errors import DataRefusedError, FieldViolation, Reason
from hivefold.models import TensorFacts
from hivefold.oip.limits import FITTED_SHAPES
from hivefold.oip.requests import InferRequest
from hivefold.oip.tensors import Raw, WireTensor


class Fitted(NamedTuple):
    """A request as a model takes it: its inputs, the wanted outputs, and what it must share to be batched."""

    feed: Feed
    outputs: tuple[str, ...]
    shape: Hashable
    size_bytes: int

    def with_bytes(self, data: Raw) -> Fitted:
        """As a request with one input is taken that has other bytes and is like this in all else."""
        rows, ((shape, _),) = self.feed
        return Fitted(Feed(rows, (FeedTensor(shape, data),)), self.outputs, self.shape, len(data))


class Signature:
    """The inputs and outputs of one model."""

    def __init__(self, inputs: tuple[TensorFacts, ...], outputs: tuple[TensorFacts, ...]) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.batchable = bool(inputs) and all(facts.shape[:1] == (-1,) for facts in (*inputs, *outputs))
        """Whether every input and output begins with an axis of any size: the one along which requests are joined."""
        self._names = tuple(facts.name for facts in outputs)
        self._types = {facts.name: facts.data_type for facts in outputs}
        self._known = {facts.name for facts in inputs}
        self._described: dict[tuple[str, ...], tuple[tuple[str, str], ...]] = {}
        self._fitted: dict[tuple[object, ...], Fitted] = {}
        """What was found of requests with one input, but for its bytes."""

    def described(self, outputs: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        """Name and type of each of these outputs."""
        known = self._described.get(outputs)
        if known is None:
            if len(self._described) >= FITTED_SHAPES:
                self._described.clear()
            known = self._described[outputs] = tuple((name, self._types[name]) for name in outputs)
        return known

    def fit(self, request: InferRequest) -> Fitted:
        """The request as this model takes it. Raises DataRefusedError, naming the field, when it does not fit."""
        if len(request.inputs) != 1:
            return self._fit(request)
        (tensor,) = request.inputs
        # Whether it fits, its bytes do not say: they were checked against its shape and type.
        key = (tensor.name, tensor.data_type, tensor.shape, request.outputs)
        known = self._fitted.get(key)
        if known is None:
            found = self._fit(request)
            if len(self._fitted) >= FITTED_SHAPES:
                self._fitted.clear()
            self._fitted[key] = found._replace(feed=Feed(found.feed.rows, ()))
            return found
        feed = Feed(known.feed.rows, (FeedTensor(tensor.shape, tensor.data),))
        return Fitted(feed, known.outputs, known.shape, len(tensor.data))

    def _fit(self, request: InferRequest) -> Fitted:
        given = {tensor.name: (index, tensor) for index, tensor in enumerate(request.inputs)}
        if len(given) != len(request.inputs) or len(given) != len(self.inputs):
            raise self._misnamed(request)
        tensors: list[FeedTensor] = []
        size_bytes = 0
        for facts in self.inputs:
            found = given.get(facts.name)
            if found is None:
                raise self._misnamed(request)
            index, tensor = found
            if tensor.data_type != facts.data_type or not _fits(tensor.shape, facts.shape):
                raise _misfit(index, tensor, facts)
            tensors.append(FeedTensor(tensor.shape, tensor.data))
            size_bytes += len(tensor.data)
        outputs = self._wanted(request)
        if not self.batchable:
            return Fitted(Feed(1, tuple(tensors)), outputs, None, size_bytes)
        rows = tensors[0].shape[0]
        if len(tensors) > 1:
            _require_same_rows(request, rows)
        shape = (outputs, *[tensor.shape[1:] for tensor in tensors])
        return Fitted(Feed(rows, tuple(tensors)), outputs, shape, size_bytes)

    def _wanted(self, request: InferRequest) -> tuple[str, ...]:
        for index, name in enumerate(request.outputs):
            if name not in self._types:
                raise misfit(
                    f"outputs[{index}].name",
                    f"the model has no output {name[:64]!r}; it has {', '.join(self._names)}",
                    Reason.INVALID_ARGUMENT,
                )
        return request.outputs or self._names

    def _misnamed(self, request: InferRequest) -> DataRefusedError:
        """Says which input is unknown, given twice or missing."""
        seen: set[str] = set()
        takes = ", ".join(facts.name for facts in self.inputs)
        for index, tensor in enumerate(request.inputs):
            if tensor.name not in self._known:
                return misfit(
                    f"inputs[{index}].name",
                    f"the model has no input {tensor.name[:64]!r}; it takes {takes}",
                    Reason.INVALID_ARGUMENT,
                )
            if tensor.name in seen:
                return misfit(f"inputs[{index}].name", f"{tensor.name!r} is given twice", Reason.INVALID_ARGUMENT)
            seen.add(tensor.name)
        missing = ", ".join(facts.name for facts in self.inputs if facts.name not in seen)
        return misfit("inputs", f"{missing} is missing; the model takes {takes}", Reason.INVALID_ARGUMENT)


def misfit(field: str, description: str, reason: Reason) -> DataRefusedError:
    """The error that names a field of the request and says what to do about it."""
    return DataRefusedError(
        f"{field}: {description}",
        reason=reason,
        metadata={"field": field},
        violations=[FieldViolation(field, description)],
    )


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(size in {-1, has} for has, size in zip(shape, wanted, strict=True))


def _misfit(index: int, tensor: WireTensor, facts: TensorFacts) -> DataRefusedError:
    if tensor.data_type != facts.data_type:
        return misfit(
            f"inputs[{index}].datatype",
            f"is {tensor.data_type}, and the model's input {facts.name!r} takes {facts.data_type}",
            Reason.DATA_TYPE_MISMATCH,
        )
    return misfit(
        f"inputs[{index}].shape",
        f"is {list(tensor.shape)}, and the model's input {facts.name!r} takes {list(facts.shape)} (-1: any)",
        Reason.SHAPE_MISMATCH,
    )


def _require_same_rows(request: InferRequest, rows: int) -> None:
    for index, tensor in enumerate(request.inputs):
        if tensor.shape[0] != rows:
            raise misfit(
                f"inputs[{index}].shape",
                f"has {tensor.shape[0]} rows where another input has {rows}; give all inputs the same number",
                Reason.SHAPE_MISMATCH,
            )

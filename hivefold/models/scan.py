"""Walks an ONNX model: what it declares, and that it stays inside the bounds. Field numbers are ONNX's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import Final, TypeAlias

from hivefold.limits import (
    MODEL_BYTES,
    MODEL_CALL_DEPTH,
    MODEL_GRAPH_DEPTH,
    MODEL_NAME_BYTES,
    MODEL_NODES,
    MODEL_TENSORS,
    TENSOR_RANK,
)
from hivefold.models.wire import Field, MalformedError, Span, Wire

TensorTuple: TypeAlias = tuple[str, str, tuple[int, ...]]
Operator: TypeAlias = tuple[str, str, str]
"""Domain, name, overload."""

_DATA_TYPES: Final = {
    1: "FP32",
    2: "UINT8",
    3: "INT8",
    4: "UINT16",
    5: "INT16",
    6: "INT32",
    7: "INT64",
    8: "BYTES",
    9: "BOOL",
    10: "FP16",
    11: "FP64",
    12: "UINT32",
    13: "UINT64",
    16: "BF16",
}
_STRING: Final = 8
_BITS: Final = {
    **dict.fromkeys((25, 26), 2),
    **dict.fromkeys((21, 22, 23), 4),
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    15: 128,
}
_DEFAULT_DOMAINS: Final = frozenset({"", "ai.onnx"})
_KNOWN_DOMAINS: Final = _DEFAULT_DOMAINS | {
    "ai.onnx.ml",
    "ai.onnx.preview",
    "ai.onnx.preview.training",
    "com.microsoft",
    "com.microsoft.experimental",
    "com.microsoft.nchwc",
}
_EXTERNAL: Final = 1
_CONTEXT_OPERATOR: Final = "EPContext"
"""Names a compiled engine in another file."""


class ExternalDataError(Exception):
    """Something is kept in another file; the text says what. `outside`: not in the model's own folder."""

    def __init__(self, what: str, *, outside: bool = False) -> None:
        super().__init__(what)
        self.outside = outside


class ForeignOperatorError(MalformedError):
    """An operator is neither ONNX's nor the file's own; the text names it."""


class HostileError(MalformedError):
    """The file claims what no model needs and what would take the machine down."""


class Scan:
    """One walk over a model. After `model` its attributes hold what the file declares."""

    def __init__(self, wire: Wire) -> None:
        self.inputs: list[TensorTuple] = []
        self.outputs: list[TensorTuple] = []
        self.opset = 0
        self.producer = ""
        self.parameter_bytes = 0
        self._wire = wire
        self._calls: dict[Operator | None, Counter[Operator]] = {}
        """Which operators the graph (None) and each function use, and how often."""
        self._domains: set[str] = set()

    @property
    def operators(self) -> frozenset[str]:
        """Names of all operators and functions that are used, in subgraphs and bodies of functions too."""
        return frozenset(name for used in self._calls.values() for _, name, _ in used)

    def model(self, message: Span) -> None:
        """Reads a ModelProto. Raises MalformedError, ExternalDataError."""
        graphs: list[Span] = []
        names = {2: "", 3: ""}
        for field in self._wire.fields(message):
            match field.number:
                case 2 | 3:
                    names[field.number] = self._name(field)
                case 7:
                    graphs.append(field.span())
                case 8:
                    self._opset_import(field.span())
                case 20:
                    self._training(field.span())
                case 25:
                    self._function(field.span())
                case _:
                    pass
        if len(graphs) != 1:
            raise MalformedError("it holds no graph" if not graphs else "it holds more than one graph")
        self._main_graph(graphs[0])
        if not self._domains:
            raise MalformedError("it imports no operator set")
        self.producer = f"{names[2]} {names[3]}"
        self._check_operators()

    def _main_graph(self, message: Span) -> None:
        initialized: set[str] = set()
        declared: dict[int, list[Span]] = {11: [], 12: []}
        for field in self._wire.fields(message):
            match field.number:
                case 5:
                    initialized.add(self._tensor_name(field.span()))
                case 11 | 12:
                    declared[field.number].append(field.span())
                case 15:
                    initialized.add(self._sparse_name(field.span()))
                case _:
                    pass
        self._graph(message, None, 1)
        self.inputs = list(self._values(declared[11], initialized))
        self.outputs = list(self._values(declared[12], set()))
        if not self.outputs:
            raise MalformedError("it declares no output")

    def _graph(self, message: Span, owner: Operator | None, depth: int) -> None:
        if depth > MODEL_GRAPH_DEPTH:
            raise HostileError(f"its graphs are nested deeper than {MODEL_GRAPH_DEPTH}")
        for field in self._wire.fields(message):
            match field.number:
                case 1:
                    self._node(field.span(), owner, depth)
                case 5:
                    self._tensor(field.span())
                case 15:
                    self._sparse(field.span())
                case _:
                    pass

    def _node(self, message: Span, owner: Operator | None, depth: int) -> None:
        names = {4: "", 7: "", 8: ""}
        for field in self._wire.fields(message):
            match field.number:
                case 4 | 7 | 8:
                    names[field.number] = self._name(field)
                case 5:
                    self._attribute(field.span(), owner, depth)
                case _:
                    pass
        if names[4] == _CONTEXT_OPERATOR:
            raise ExternalDataError("a compiled engine (EPContext)")
        self._calls.setdefault(owner, Counter())[names[7], names[4], names[8]] += 1

    def _attribute(self, message: Span, owner: Operator | None, depth: int) -> None:
        for field in self._wire.fields(message):
            match field.number:
                case 5 | 10:
                    self._tensor(field.span())
                case 6 | 11:
                    self._graph(field.span(), owner, depth + 1)
                case 22 | 23:
                    self._sparse(field.span())
                case _:
                    pass

    def _function(self, message: Span) -> None:
        names = {1: "", 10: "", 13: ""}
        bodies: list[Field] = []
        for field in self._wire.fields(message):
            match field.number:
                case 1 | 10 | 13:
                    names[field.number] = self._name(field)
                case 7 | 11:
                    bodies.append(field)
                case _:
                    pass
        key = (names[10], names[1], names[13])
        if key in self._calls:
            raise MalformedError(f"it defines the function {names[1]!r} twice")
        self._calls[key] = Counter()
        for body in bodies:
            if body.number == 7:
                self._node(body.span(), key, 1)
            else:
                self._attribute(body.span(), key, 1)

    def _training(self, message: Span) -> None:
        for field in self._wire.fields(message):
            if field.number in {1, 2}:
                self._graph(field.span(), None, 1)

    def _tensor(self, message: Span) -> None:
        elements, data_type, raw = 1, 0, -1
        for field in self._wire.fields(message):
            match field.number:
                case 1:
                    for size in self._wire.integers(field):
                        elements *= size
                        if size < 0 or elements > MODEL_BYTES * 8:
                            raise HostileError(f"the tensor {self._tensor_name(message)!r} has an absurd shape")
                case 2:
                    data_type = field.integer()
                case 9:
                    raw = field.span().size
                case 13:
                    raise self._external(message)
                case 14 if field.integer() == _EXTERNAL:
                    raise self._external(message)
                case _:
                    pass
        self._count(message, elements, data_type, raw)

    def _count(self, message: Span, elements: int, data_type: int, raw: int) -> None:
        if data_type == _STRING:
            size = message.size
        elif data_type in _BITS:
            size = -(-elements * _BITS[data_type] // 8)
        else:
            raise MalformedError(f"the tensor {self._tensor_name(message)!r} has the unknown type {data_type}")
        # Typed fields pack at most four elements into a byte, so this bounds what a tensor can claim.
        if (raw >= 0 and raw != size) or elements > 4 * message.size:
            raise MalformedError(f"the tensor {self._tensor_name(message)!r} holds other bytes than its shape needs")
        self.parameter_bytes += size

    def _external(self, message: Span) -> ExternalDataError:
        """The refusal of a tensor in another file, with whether that lies outside the model's folder."""
        location = ""
        for field in self._wire.fields(message):
            if field.number == 13:
                parts = {part.number: self._name(part) for part in self._wire.fields(field.span())}
                location = parts.get(2, "") if parts.get(1) == "location" else location
        outside = location.startswith(("/", "\\", "~")) or ":" in location or ".." in re.split(r"[/\\]", location)
        return ExternalDataError(f"the tensor {self._tensor_name(message)!r}", outside=outside)

    def _sparse(self, message: Span) -> None:
        for field in self._wire.fields(message):
            if field.number in {1, 2}:
                self._tensor(field.span())

    def _tensor_name(self, message: Span) -> str:
        return next((self._name(field) for field in self._wire.fields(message) if field.number == 8), "")

    def _sparse_name(self, message: Span) -> str:
        values = (field.span() for field in self._wire.fields(message) if field.number == 1)
        return next((self._tensor_name(value) for value in values), "")

    def _opset_import(self, message: Span) -> None:
        domain, version = "", 0
        for field in self._wire.fields(message):
            if field.number == 1:
                domain = self._name(field)
            elif field.number == 2:
                version = field.integer()
        self._domains.add(domain)
        if domain in _DEFAULT_DOMAINS:
            self.opset = version

    def _values(self, messages: list[Span], left_out: set[str]) -> Iterator[TensorTuple]:
        seen: set[str] = set()
        for message in messages:
            parts = {field.number: field for field in self._wire.fields(message)}
            name = self._name(parts[1]) if 1 in parts else ""
            if name in left_out:
                continue
            if not name or name in seen:
                raise MalformedError("an input or output has no name of its own")
            if 2 not in parts:
                raise MalformedError(f"{name!r} has no type")
            seen.add(name)
            if len(seen) > MODEL_TENSORS:
                raise MalformedError(f"it has more than {MODEL_TENSORS} inputs or outputs")
            yield name, *self._type(name, parts[2].span())

    def _type(self, name: str, message: Span) -> tuple[str, tuple[int, ...]]:
        parts = {field.number: field for field in self._wire.fields(message)}
        if 1 not in parts:
            raise MalformedError(
                f"{name!r} is not a tensor: export it as one (scikit-learn's classifiers: skl2onnx option zipmap=False)"
            )
        tensor = {field.number: field for field in self._wire.fields(parts[1].span())}
        data_type = _DATA_TYPES.get(tensor[1].integer() if 1 in tensor else 0)
        if data_type is None:
            raise MalformedError(f"{name!r} has an element type that hivefold does not know")
        if 2 not in tensor:
            raise MalformedError(f"{name!r} has no shape: save the model again after onnx.shape_inference.infer_shapes")
        return data_type, self._shape(name, tensor[2].span())

    def _shape(self, name: str, message: Span) -> tuple[int, ...]:
        shape: list[int] = []
        for dimension in self._wire.fields(message):
            if dimension.number != 1:
                continue
            value = -1
            for field in self._wire.fields(dimension.span()):
                if field.number == 1:
                    value = max(field.integer(), -1)
            shape.append(value)
        if len(shape) > TENSOR_RANK:
            raise MalformedError(f"{name!r} has {len(shape)} dimensions, and at most {TENSOR_RANK} are supported")
        if prod(abs(size) for size in shape) > MODEL_BYTES * 8:
            raise HostileError(f"{name!r} has an absurd shape")
        return tuple(shape)

    def _check_operators(self) -> None:
        """Every operator is known or a function of the file, and calls end within the bounds."""
        for used in self._calls.values():
            for domain, name, overload in used:
                if (domain, name, overload) not in self._calls and domain not in _KNOWN_DOMAINS:
                    raise ForeignOperatorError(
                        f"the operator {name!r} belongs to the custom domain {domain!r}, which is not loaded: "
                        "export the model with standard operators"
                    )
        if self._expanded(None, {}, 0) > MODEL_NODES:
            raise HostileError(f"it has more than {MODEL_NODES} nodes once its functions are unfolded")

    def _expanded(self, owner: Operator | None, known: dict[Operator | None, int], depth: int) -> int:
        if depth > MODEL_CALL_DEPTH:
            raise HostileError(f"its functions call each other deeper than {MODEL_CALL_DEPTH}, or without end")
        if owner not in known:
            known[owner] = sum(
                times * (self._expanded(operator, known, depth + 1) if operator in self._calls else 1)
                for operator, times in self._calls.get(owner, Counter()).items()
            )
        return known[owner]

    def _name(self, field: Field) -> str:
        return self._wire.text(field.span(), MODEL_NAME_BYTES)

"""An ONNX graph as plain values: nodes, stored tensors, declared shapes. Field numbers are ONNX's."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from math import prod
from typing import Final

from hivefold.limits import MODEL_NAME_BYTES, MODEL_NODES
from hivefold.models.wire import Field, MalformedError, Span, Wire

TYPES: Final = {
    1: ("FP32", 32), 2: ("UINT8", 8), 3: ("INT8", 8), 4: ("UINT16", 16), 5: ("INT16", 16), 6: ("INT32", 32),
    7: ("INT64", 64), 8: ("BYTES", 64), 9: ("BOOL", 8), 10: ("FP16", 16), 11: ("FP64", 64), 12: ("UINT32", 32),
    13: ("UINT64", 64), 14: ("COMPLEX64", 64), 15: ("COMPLEX128", 128), 16: ("BF16", 16), 17: ("FP8", 8),
    18: ("FP8", 8), 19: ("FP8", 8), 20: ("FP8", 8), 21: ("UINT4", 4), 22: ("INT4", 4), 23: ("FP4", 4), 24: ("FP8", 8),
}  # fmt: skip
"""Element type and bits by TensorProto.DataType."""
_SMALL: Final = 64
"""Tensors of at most this many elements may be shapes: their values are kept."""
_RANK: Final = 32


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in the file. `values` where it is small and of whole numbers or FP32."""

    name: str
    data_type: str
    shape: tuple[int, ...]
    size_bytes: int
    values: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Node:
    """An operator. Attributes: a number, numbers, a text, or a small tensor."""

    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: dict[str, tuple[float, ...]]
    texts: dict[str, str]
    tensors: dict[str, Stored]
    counts: dict[str, int]
    """How many numbers an attribute holds; of many only the first are in `numbers`."""

    def number(self, name: str, otherwise: int) -> int:
        """An attribute that is one whole number."""
        found = self.numbers.get(name)
        return int(found[0]) if found else otherwise


@dataclass(slots=True)
class Graph:
    """The main graph of a model."""

    nodes: list[Node] = field(default_factory=list)
    stored: dict[str, Stored] = field(default_factory=dict)
    inputs: list[tuple[str, str, tuple[int, ...]]] = field(default_factory=list)
    outputs: list[tuple[str, str, tuple[int, ...]]] = field(default_factory=list)
    declared: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    """Element types and shapes that the file gives for tensors in between."""
    weights_of_nodes: list[Stored] = field(default_factory=list)
    """Tensors in attributes, of this graph and those in it."""
    operators: dict[str, int] = field(default_factory=dict)
    opset: int = 0
    producer: str = ""
    ir_version: int = 0


def read(wire: Wire, message: Span) -> Graph:
    """The graph of a ModelProto. Raises MalformedError."""
    graph = Graph()
    reader = _Reader(wire, graph)
    for part in wire.fields(message):
        match part.number:
            case 1:
                graph.ir_version = part.integer()
            case 2:
                graph.producer = reader.text(part)
            case 7:
                reader.graph(part.span(), main=True)
            case 8:
                reader.opset(part.span())
            case 25:
                reader.function(part.span())
            case _:
                pass
    return graph


class _Reader:
    def __init__(self, wire: Wire, graph: Graph) -> None:
        self._wire = wire
        self._graph = graph
        self._nodes = 0

    def graph(self, message: Span, *, main: bool, depth: int = 0) -> None:
        """A GraphProto; of those inside others only operators and weights count."""
        if depth > 16:
            raise MalformedError("its graphs are nested too deep")
        for part in self._wire.fields(message):
            match part.number:
                case 1:
                    node = self._node(part.span(), depth)
                    if main:
                        self._graph.nodes.append(node)
                case 5:
                    stored = self.tensor(part.span())
                    if main:
                        self._graph.stored[stored.name] = stored
                    else:
                        self._graph.weights_of_nodes.append(stored)
                case 11 | 12 | 13 if main:
                    self._value(part.number, part.span())
                case _:
                    pass

    def function(self, message: Span) -> None:
        """A FunctionProto: its operators count."""
        for part in self._wire.fields(message):
            if part.number == 7:
                self._node(part.span(), 1)

    def opset(self, message: Span) -> None:
        """An OperatorSetIdProto."""
        parts = {part.number: part for part in self._wire.fields(message)}
        if (self.text(parts[1]) if 1 in parts else "") in {"", "ai.onnx"} and 2 in parts:
            self._graph.opset = parts[2].integer()

    def _node(self, message: Span, depth: int) -> Node:
        self._nodes += 1
        if self._nodes > MODEL_NODES:
            raise MalformedError(f"it has more than {MODEL_NODES} nodes")
        inputs: list[str] = []
        outputs: list[str] = []
        names = {4: "", 7: ""}
        node = Node("", "", (), (), {}, {}, {}, {})
        for part in self._wire.fields(message):
            match part.number:
                case 1:
                    inputs.append(self.text(part))
                case 2:
                    outputs.append(self.text(part))
                case 4 | 7:
                    names[part.number] = self.text(part)
                case 5:
                    self._attribute(part.span(), node, depth)
                case _:
                    pass
        self._graph.operators[names[4]] = self._graph.operators.get(names[4], 0) + 1
        return Node(
            names[4], names[7], tuple(inputs), tuple(outputs), node.numbers, node.texts, node.tensors, node.counts
        )

    def _attribute(self, message: Span, node: Node, depth: int) -> None:
        name = ""
        numbers: list[float] = []
        for part in self._wire.fields(message):
            match part.number:
                case 1:
                    name = self.text(part)
                case 2:
                    numbers.append(_float(self._wire, part))
                case 3:
                    numbers.append(part.integer())
                case 7:
                    node.counts[name] = node.counts.get(name, 0) + part.span().size // 4
                case 8:
                    given = list(self._wire.integers(part))
                    node.counts[name] = node.counts.get(name, 0) + len(given)
                    numbers += given[: _SMALL - len(numbers)]
                case 4 if part.span().size <= MODEL_NAME_BYTES:
                    node.texts[name] = bytes(self._wire.data[part.span().start : part.span().end]).decode(
                        "utf-8", "replace"
                    )
                case 5 | 10:
                    stored = self.tensor(part.span())
                    node.tensors[name] = stored
                    if stored.values is None:
                        self._graph.weights_of_nodes.append(stored)
                case 6 | 11:
                    self.graph(part.span(), main=False, depth=depth + 1)
                case _:
                    pass
        if numbers:
            node.numbers[name] = tuple(numbers)

    def tensor(self, message: Span) -> Stored:
        """A TensorProto."""
        shape: list[int] = []
        kind, name, raw = 0, "", None
        plain: list[float] = []
        for part in self._wire.fields(message):
            match part.number:
                case 1:
                    shape += list(self._wire.integers(part))
                case 2:
                    kind = part.integer()
                case 5 | 7:
                    span = part.value
                    if isinstance(span, int) or span.size <= 10 * _SMALL:
                        plain += list(self._wire.integers(part))
                case 8:
                    name = self.text(part)
                case 9:
                    raw = part.span()
                case _:
                    pass
        data_type, bits = TYPES.get(kind, ("", 0))
        if len(shape) > _RANK or any(size < 0 for size in shape):
            raise MalformedError(f"the tensor {name!r} has an absurd shape")
        elements = prod(shape)
        values = self._values(data_type, elements, raw, plain) if elements <= _SMALL else None
        return Stored(name, data_type, tuple(shape), -(-elements * bits // 8), values)

    def _values(self, data_type: str, elements: int, raw: Span | None, plain: list[float]) -> tuple[float, ...] | None:
        form = {"INT64": "q", "INT32": "i", "FP32": "f"}.get(data_type)
        if form is None:
            return None
        if raw is None:
            return tuple(plain) if len(plain) == elements and form != "f" else None
        size = struct.calcsize(form) * elements
        return struct.unpack(f"<{elements}{form}", self._wire.data[raw.start : raw.end]) if raw.size == size else None

    def _value(self, number: int, message: Span) -> None:
        """A ValueInfoProto of an input (11), an output (12) or a tensor in between (13)."""
        parts = {part.number: part for part in self._wire.fields(message)}
        if 1 not in parts or 2 not in parts:
            return
        name = self.text(parts[1])
        outer = {part.number: part for part in self._wire.fields(parts[2].span())}
        data_type, shape = self._tensor_type(outer[1].span()) if 1 in outer else ("", None)
        if number == 13 or shape is None:
            if shape is not None:
                self._graph.declared[name] = (data_type, shape)
            return
        (self._graph.inputs if number == 11 else self._graph.outputs).append((name, data_type, shape))

    def _tensor_type(self, message: Span) -> tuple[str, tuple[int, ...] | None]:
        parts = {part.number: part for part in self._wire.fields(message)}
        data_type = TYPES.get(parts[1].integer(), ("", 0))[0] if 1 in parts else ""
        if 2 not in parts:
            return data_type, None
        shape = []
        for dimension in self._wire.fields(parts[2].span()):
            if dimension.number == 1:
                sizes = [part.integer() for part in self._wire.fields(dimension.span()) if part.number == 1]
                shape.append(max(sizes[-1], -1) if sizes else -1)
        if len(shape) > _RANK:
            raise MalformedError(f"a tensor has {len(shape)} dimensions")
        return data_type, tuple(shape)

    def text(self, part: Field) -> str:
        """A name."""
        return self._wire.text(part.span(), MODEL_NAME_BYTES)


def _float(wire: Wire, part: Field) -> float:
    span = part.span()
    if span.size != 4:
        raise MalformedError("a number has not four bytes")
    (value,) = struct.unpack("<f", wire.data[span.start : span.end])
    return float(value)

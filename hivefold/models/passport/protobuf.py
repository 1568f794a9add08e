"""TensorFlow's protobuf files: SavedModel and frozen graphs. Field numbers are TensorFlow's."""

from __future__ import annotations

from math import prod
from typing import Final

from hivefold.limits import MODEL_NAME_BYTES
from hivefold.models.passport.draft import Draft, Weight
from hivefold.models.passport.facts import Port
from hivefold.models.passport.limits import PASSPORT_PARTS
from hivefold.models.passport.source import Source
from hivefold.models.wire import Field, MalformedError, Span, Wire

TYPES: Final = {
    1: ("FP32", 4), 2: ("FP64", 8), 3: ("INT32", 4), 4: ("UINT8", 1), 5: ("INT16", 2), 6: ("INT8", 1), 7: ("BYTES", 1),
    8: ("COMPLEX64", 8), 9: ("INT64", 8), 10: ("BOOL", 1), 11: ("INT8", 1), 12: ("UINT8", 1), 13: ("INT32", 4),
    14: ("BF16", 2), 17: ("UINT16", 2), 18: ("COMPLEX128", 16), 19: ("FP16", 2), 22: ("UINT32", 4), 23: ("UINT64", 8),
}  # fmt: skip
_UNSAFE: Final = {
    "PyFunc": "runs Python", "PyFuncStateless": "runs Python", "EagerPyFunc": "runs Python",
    "WriteFile": "writes a file", "PrintV2": "may write a file", "SaveSlices": "writes files",
    "DebugIdentity": "sends tensors away", "DebugIdentityV2": "sends tensors away",
    "CreateSummaryFileWriter": "writes a file", "CreateSummaryDbWriter": "writes a file",
    "DebugIdentityV3": "sends tensors away",
    "RpcCall": "calls another machine", "Rpc": "calls another machine", "TryRpc": "calls another machine",
    "WriteAudioSummary": "writes a file", "WriteImageSummary": "writes a file", "WriteRawProtoSummary": "writes a file",
    "LMDBReader": "reads files", "DistributedSave": "writes files", "SaveDataset": "writes files",
    "ExperimentalLMDBDataset": "reads files", "DatasetToTFRecord": "writes files", "XlaLaunchV2": "runs compiled code",
}  # fmt: skip
_SUSPICIOUS: Final = {
    "ReadFile": "reads a file", "MatchingFiles": "lists files", "FixedLengthRecordReaderV2": "reads files",
    "TFRecordReaderV2": "reads files", "TextLineReaderV2": "reads files", "WholeFileReaderV2": "reads files",
    "TFRecordDataset": "reads files", "TextLineDataset": "reads files", "InitializeTableFromTextFileV2": "reads a file",
    "LoadDataset": "reads files", "XlaCallModule": "holds a compiled program", "TPUExecute": "runs compiled code",
    "PartitionedCallCompiled": "runs compiled code", "SqlDataset": "reads files",
}  # fmt: skip
_SHAPE_RANK: Final = 32


def kind(source: Source) -> str:
    """What a protobuf file is: "onnx", "saved-model", "graph", or "" for none of them."""
    wire = Wire(source.data, 100_000)
    fields: dict[int, Field] = {}
    try:
        for field in wire.fields(Span(source.start, source.end)):
            fields.setdefault(field.number, field)
    except MalformedError:
        pass
    if {7, 8} & fields.keys() and isinstance(fields.get(7, fields.get(8, Field(0, 0))).value, Span):
        return "onnx"
    first, second = fields.get(1), fields.get(2)
    if first and isinstance(first.value, int) and second and isinstance(second.value, Span):
        return "saved-model"
    if first and isinstance(first.value, Span) and _is_node(wire, first.value):
        return "graph"
    return "onnx" if first and isinstance(first.value, int) and 2 <= first.value < 100 else ""


def inspect_saved_model(source: Source, draft: Draft) -> None:
    """saved_model.pb. Raises MalformedError."""
    draft.format, draft.framework = "saved-model", "tensorflow"
    graph = _Graph(Wire(source.data, PASSPORT_PARTS), draft)
    for field in graph.wire.fields(Span(source.start, source.end)):
        if field.number == 2:
            graph.meta(field.span())
    graph.judge(source.name)


def inspect_graph(source: Source, draft: Draft) -> None:
    """A frozen graph (GraphDef). Raises MalformedError."""
    draft.format, draft.framework = "tensorflow-graph", "tensorflow"
    graph = _Graph(Wire(source.data, PASSPORT_PARTS), draft)
    graph.graph(Span(source.start, source.end), ports=True)
    graph.judge(source.name)


def shape_of(wire: Wire, message: Span) -> tuple[int, ...] | None:
    """A TensorShapeProto, -1 where any size is accepted; None where not even the rank is known."""
    shape: list[int] = []
    for field in wire.fields(message):
        if field.number == 3 and field.integer():
            return None
        if field.number == 2:
            size = 0
            for part in wire.fields(field.span()):
                size = part.integer() if part.number == 1 else size
            shape.append(max(size, -1))
    if len(shape) > _SHAPE_RANK:
        raise MalformedError(f"a tensor has {len(shape)} dimensions")
    return tuple(shape)


def described(wire: Wire, message: Span) -> tuple[str, tuple[int, ...] | None, int]:
    """Element type, shape and bytes of what says its type in field 1 and its shape in field 2.

    The shape is None where a size is not known: what is stored has one.
    """
    parts = {field.number: field for field in wire.fields(message)}
    data_type, width = TYPES.get(parts[1].integer() if 1 in parts else 0, ("", 0))
    shape = (shape_of(wire, parts[2].span()) if 2 in parts else ()) or ()
    return (data_type, shape, prod(shape) * width) if min(shape, default=0) >= 0 else (data_type, None, 0)


def _is_node(wire: Wire, message: Span) -> bool:
    """Whether a message may be a NodeDef: a name and an operator."""
    try:
        found = {field.number: field for field in wire.fields(message)}
        return {1, 2} <= found.keys() and bool(wire.text(found[2].span(), 256).replace("_", "").isalnum())
    except MalformedError:
        return False


class _Graph:
    """One walk over graphs and their functions."""

    def __init__(self, wire: Wire, draft: Draft) -> None:
        self.wire = wire
        self._draft = draft

    def meta(self, message: Span) -> None:
        """A MetaGraphDef."""
        for field in self.wire.fields(message):
            if field.number == 1:
                self._info(field.span())
            elif field.number == 2:
                self.graph(field.span(), ports=False)
            elif field.number == 5:
                self._signature(field.span())
            elif field.number == 7:
                self._objects(field.span())

    def graph(self, message: Span, *, ports: bool) -> None:
        """A GraphDef; its placeholders are inputs where `ports`."""
        consumed: set[str] = set()
        names: list[str] = []
        for field in self.wire.fields(message):
            if field.number == 1:
                names.append(self._node(field.span(), ports=ports, consumed=consumed))
            elif field.number == 2:
                self._library(field.span())
        if ports:
            for name in names:
                if name and name not in consumed:
                    self._draft.add_port(self._draft.outputs, name, "", ())

    def judge(self, place: str) -> None:
        """Operators that reach beyond tensors are evidence."""
        for operator in self._draft.operators:
            if operator in _UNSAFE:
                self._draft.unsafe("tensorflow-operator", place, f"the operator {operator} {_UNSAFE[operator]}")
            elif operator in _SUSPICIOUS:
                self._draft.suspicious("tensorflow-operator", place, f"the operator {operator} {_SUSPICIOUS[operator]}")

    def _info(self, message: Span) -> None:
        for field in self.wire.fields(message):
            if field.number == 5:
                self._draft.format_version = f"TensorFlow {self._text(field)}"

    def _objects(self, message: Span) -> None:
        """A SavedObjectGraph: its variables. Keras exports each twice, under one name."""
        for node in self.wire.fields(message):
            for given in self.wire.fields(node.span()) if node.number == 1 else ():
                if given.number == 7:
                    self._variable(given.span())

    def _variable(self, message: Span) -> None:
        self._draft.budget.spend()
        data_type, shape, size = described(self.wire, message)
        parts = {field.number: field for field in self.wire.fields(message)}
        name = self._text(parts[6]) if 6 in parts else ""
        if shape is not None:
            storage = "" if name in {"", "Variable"} else f"variable {name}"
            trained = 3 in parts and bool(parts[3].integer())
            self._draft.weights.append(Weight(name, data_type, shape, size, storage, trained=trained))

    def _library(self, message: Span) -> None:
        for function in self.wire.fields(message):
            if function.number == 1:
                for field in self.wire.fields(function.span()):
                    if field.number == 3:
                        self._node(field.span(), ports=False, consumed=set())

    def _node(self, message: Span, *, ports: bool, consumed: set[str]) -> str:
        self._draft.budget.spend()
        name = operator = ""
        attributes: dict[str, Span] = {}
        for field in self.wire.fields(message):
            match field.number:
                case 1:
                    name = self._text(field)
                case 2:
                    operator = self._text(field)
                case 3:
                    consumed.add(self._text(field).lstrip("^").split(":")[0])
                case 5:
                    self._attribute(field.span(), attributes)
                case _:
                    pass
        self._draft.operators[operator] = self._draft.operators.get(operator, 0) + 1
        if ports and operator == "Placeholder":
            self._placeholder(name, attributes)
        elif operator == "Const" and "value" in attributes:
            self._constant(name, attributes["value"], keep=ports)
        return "" if operator in {"Placeholder", "Const", "NoOp"} else name

    def _attribute(self, message: Span, attributes: dict[str, Span]) -> None:
        parts = {field.number: field for field in self.wire.fields(message)}
        if 1 in parts and 2 in parts:
            attributes[self._text(parts[1])] = parts[2].span()

    def _placeholder(self, name: str, attributes: dict[str, Span]) -> None:
        data_type, shape = "", None
        for given in attributes.values():
            for field in self.wire.fields(given):
                if field.number == 6:
                    data_type = TYPES.get(field.integer(), ("", 0))[0]
                elif field.number == 7:
                    shape = shape_of(self.wire, field.span())
        self._draft.add_port(self._draft.inputs, name, data_type, shape or ())

    def _constant(self, name: str, value: Span, *, keep: bool) -> None:
        for field in self.wire.fields(value):
            if field.number != 8:
                continue
            data_type, shape, size = described(self.wire, field.span())
            if keep and shape and data_type.startswith(("FP", "BF")):
                self._draft.weights.append(Weight(name, data_type, shape, size))

    def _signature(self, message: Span) -> None:
        """An entry of the signatures: the one for serving names the model's inputs and outputs."""
        parts = {field.number: field for field in self.wire.fields(message)}
        if 1 not in parts or 2 not in parts or self._text(parts[1]) not in {"serving_default", "serve", "predict"}:
            return
        if self._draft.inputs or self._draft.outputs:
            return
        for field in self.wire.fields(parts[2].span()):
            if field.number in {1, 2}:
                ports = self._draft.inputs if field.number == 1 else self._draft.outputs
                self._port(field.span(), ports)

    def _port(self, message: Span, ports: list[Port]) -> None:
        parts = {field.number: field for field in self.wire.fields(message)}
        if 1 not in parts or 2 not in parts:
            return
        facts = {field.number: field for field in self.wire.fields(parts[2].span())}
        data_type = TYPES.get(facts[2].integer(), ("", 0))[0] if 2 in facts else ""
        shape = shape_of(self.wire, facts[3].span()) if 3 in facts else ()
        self._draft.add_port(ports, self._text(parts[1]), data_type, shape or ())

    def _text(self, field: Field) -> str:
        return self.wire.text(field.span(), MODEL_NAME_BYTES)

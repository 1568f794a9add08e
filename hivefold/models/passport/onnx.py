"""ONNX models: their graph, what it needs, and whether it stays inside the file."""

from __future__ import annotations

from typing import Final

from hivefold.limits import MODEL_FIELDS
from hivefold.models.passport import graph as graphs
from hivefold.models.passport.activations import measure
from hivefold.models.passport.draft import Draft, Weight
from hivefold.models.passport.source import Source
from hivefold.models.scan import ExternalDataError, ForeignOperatorError, HostileError, Scan
from hivefold.models.wire import MalformedError, Span, Wire

_FRAMEWORKS: Final = {"pytorch": "pytorch", "tf2onnx": "tensorflow", "skl2onnx": "scikit-learn", "keras": "keras",
                      "onnxmltools": "scikit-learn", "keras2onnx": "keras", "paddle": "paddle"}  # fmt: skip
_RUNNING: Final = frozenset({"BatchNormalization"})
"""Operators whose fourth and fifth input are running means."""


_LINES: Final = ("coefficients", "intercepts", "rho", "support_vectors")
_FITTED: Final = {
    **dict.fromkeys(("TreeEnsembleClassifier", "TreeEnsembleRegressor"), ("nodes_featureids",)),
    **dict.fromkeys(("LinearClassifier", "LinearRegressor", "SVMClassifier", "SVMRegressor"), _LINES),
}
"""Attributes that hold what such an operator predicts with: a tree's nodes count once each."""


def inspect(source: Source, draft: Draft) -> None:
    """An ONNX model. Raises MalformedError."""
    draft.format, draft.framework = "onnx", "onnx"
    whole = Span(source.start, source.end)
    _judge(source, whole, draft)
    graph = graphs.read(Wire(source.data, MODEL_FIELDS), whole)
    draft.format_version = f"opset {graph.opset}, IR {graph.ir_version}"
    draft.framework = next((f for word, f in _FRAMEWORKS.items() if word in graph.producer.lower()), "onnx")
    draft.operators = graph.operators
    stored = graph.stored
    for name, data_type, shape in graph.inputs:
        if name not in stored:
            draft.add_port(draft.inputs, name, data_type, shape)
    for name, data_type, shape in graph.outputs:
        draft.add_port(draft.outputs, name, data_type, shape)
    _weights(graph, draft)
    measure(graph, draft)


def _judge(source: Source, whole: Span, draft: Draft) -> None:
    """The checks that also guard registration and loading."""
    try:
        Scan(Wire(source.data, MODEL_FIELDS)).model(whole)
    except ExternalDataError as error:
        if error.outside:
            draft.unsafe("onnx-external-data", source.name, f"keeps {error} in another file, outside its folder")
        else:
            draft.suspicious("onnx-external-data", source.name, f"keeps {error} in another file, which is not read")
    except ForeignOperatorError as error:
        draft.suspicious("onnx-custom-operator", source.name, str(error))
    except HostileError as error:
        draft.unsafe("onnx-hostile", source.name, str(error))
    except MalformedError as error:
        draft.unknown("malformed", source.name, str(error))


def _weights(graph: graphs.Graph, draft: Draft) -> None:
    running = {name for node in graph.nodes if node.operator in _RUNNING for name in node.inputs[3:5]}
    for stored in (*graph.stored.values(), *graph.weights_of_nodes):
        trained = stored.name not in running and stored.data_type not in {"INT32", "UINT32"}
        draft.weights.append(Weight(stored.name, stored.data_type, stored.shape, stored.size_bytes, trained=trained))
    for node in graph.nodes:
        for stored in node.tensors.values():
            if node.operator == "Constant" and stored.values is not None and len(stored.shape) > 0:
                draft.weights.append(Weight("", stored.data_type, stored.shape, stored.size_bytes))
    fitted = sum(node.counts.get(name, 0) for node in graph.nodes for name in _FITTED.get(node.operator, ()))
    draft.parameter_count = fitted or None

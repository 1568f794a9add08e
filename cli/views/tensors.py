"""Tensors and models in a line."""

from __future__ import annotations

from collections.abc import Iterable

from hivefold.v1 import model_pb2


def tensor(spec: model_pb2.TensorSpec) -> str:
    """A tensor in a line: "probabilities FP32[?, 10]"."""
    return f"{spec.name} {data_type(spec.data_type)}{shape(spec.shape)}"


def data_type(value: model_pb2.DataType.ValueType) -> str:
    """An element type without its prefix."""
    return model_pb2.DataType.Name(value).removeprefix("DATA_TYPE_")


def shape(dimensions: Iterable[int]) -> str:
    """A shape; "?" stands for any size."""
    return f"[{', '.join('?' if size < 0 else str(size) for size in dimensions)}]"


def ref(model: model_pb2.Model) -> str:
    """ "name@version"; empty when there is none."""
    return f"{model.name}@{model.version}" if model.name else ""

"""Models that only benchmarks serve: a convolutional classifier of digits, and the mean of a large tensor."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier

from examples.digits.training import save

_CHANNELS: Final = (1, 64, 128, 128, 128, 128)
_SEED: Final = 1


def write_cnn(path: Path) -> float:
    """Writes a network of five convolutions over images [N, 1, 8, 8], and gives the share of digits that it knows.

    The convolutions keep their seeded random weights, the last layer is fitted to their features on half of the
    digits: the share is of the other half.
    """
    random = np.random.default_rng(_SEED)
    weights: dict[str, np.ndarray] = {}
    nodes = []
    current = "image"
    for at, (less, more) in enumerate(pairwise(_CHANNELS)):
        scale = np.sqrt(2 / (9 * less))
        weights[f"kernel{at}"] = (scale * random.standard_normal((more, less, 3, 3))).astype(np.float32)
        nodes.append(helper.make_node("Conv", [current, f"kernel{at}"], [f"sum{at}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"sum{at}"], [f"layer{at}"]))
        current = f"layer{at}"
    nodes.append(helper.make_node("MaxPool", [current], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["features"]))
    size = 16 * _CHANNELS[-1]
    _write(path, nodes, weights, "features", size)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (features,) = session.run(["features"], {"image": images})
    half = len(images) // 2
    readout = RidgeClassifier(alpha=10.0).fit(features[:half], labels[:half])
    weights["readout"] = readout.coef_.T.astype(np.float32)
    weights["offset"] = readout.intercept_.astype(np.float32)
    nodes.append(helper.make_node("Gemm", ["features", "readout", "offset"], ["scores"]))
    _write(path, nodes, weights, "scores", 10)
    return float(readout.score(features[half:], labels[half:]))


def write_mean(path: Path) -> None:
    """Writes the mean of each row of [N, M]."""
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=0)],
        "mean",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "M"])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["N"])],
    )
    save(graph, path)


def _write(path: Path, nodes: list[NodeProto], weights: dict[str, np.ndarray], output: str, size: int) -> None:
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", size])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    save(graph, path)

"""Trains the classifier with scikit-learn and writes it down as ONNX, operator by operator."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from examples.digits.data import PIXELS, Digits, augmented

HIDDEN: Final = (512, 256)
CLASSES: Final = 10
OPSET: Final = 17
_TRAINING_ROWS: Final = 25_000
_EPOCHS: Final = 8
_SEED: Final = 11


@dataclass(frozen=True)
class Trained:
    """A trained network: weights and biases layer by layer, and its accuracy on untouched held-out digits."""

    weights: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]
    held_out_accuracy: float


def train(digits: Digits) -> Trained:
    """Two hidden layers on variations of the training digits: seconds on two cores, always the same result."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    blocks = list(augmented(digits.train_images, digits.train_labels, _TRAINING_ROWS, _SEED))
    network = MLPClassifier(
        HIDDEN, batch_size=512, learning_rate_init=2e-3, alpha=1e-4, max_iter=_EPOCHS, random_state=_SEED
    )
    # On cores that others use too, two BLAS threads wait for each other ten times longer than one computes.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of epochs is the plan
        network.fit(np.concatenate([images for images, _ in blocks]), np.concatenate([labels for _, labels in blocks]))
    return Trained(
        weights=tuple(weight.astype(np.float32) for weight in network.coefs_),
        biases=tuple(bias.astype(np.float32) for bias in network.intercepts_),
        held_out_accuracy=float(network.score(digits.held_out_images, digits.held_out_labels)),
    )


def export(trained: Trained, path: Path) -> None:
    """Writes the network as ONNX: pixels float32 [N, 64] to label int64 [N] and probabilities float32 [N, 10]."""
    initializers, nodes, current = [], [], "pixels"
    for layer, (weight, bias) in enumerate(zip(trained.weights, trained.biases, strict=True)):
        initializers += [numpy_helper.from_array(weight, f"w{layer}"), numpy_helper.from_array(bias, f"b{layer}")]
        nodes.append(helper.make_node("Gemm", [current, f"w{layer}", f"b{layer}"], [f"sum{layer}"]))
        if layer < len(trained.weights) - 1:
            nodes.append(helper.make_node("Relu", [f"sum{layer}"], [f"out{layer}"]))
            current = f"out{layer}"
        else:
            nodes.append(helper.make_node("Softmax", [f"sum{layer}"], ["probabilities"], axis=-1))
    nodes.append(helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", PIXELS])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES]),
        ],
        initializers,
    )
    save(graph, path)


def save(graph: Any, path: Path) -> None:
    """Checks a graph and writes it as one file."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="hivefold examples")
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, str(path))

"""A model that takes a millisecond or more a row on one core: what a fleet is for.

    python -m examples.heavy_model FILE [--milliseconds 1.5]

A stack of wide layers with seeded random weights, small enough to be sent around (under 100 MB): the
same layers are passed several times. features float32 [N, 64] to scores float32 [N, 16].
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from examples.digits.training import save

FEATURES: Final = 64
SCORES: Final = 16
_WIDTH: Final = 2048
_LAYERS: Final = 4
_GFLOPS: Final = 150.0
"""What one fast core does in single precision: slower ones take longer a row."""


def write(path: Path, *, row_ms: float = 1.5, seed: int = 1) -> None:
    """Writes the model; `row_ms` is about what a row takes on one fast core when rows come in batches."""
    random = np.random.default_rng(seed)
    passes = max(round(row_ms * 1e-3 * _GFLOPS * 1e9 / (2 * _WIDTH * _WIDTH * _LAYERS)), 1)
    scale = np.float32(np.sqrt(2 / _WIDTH))
    weights = {"widen": random.standard_normal((FEATURES, _WIDTH), np.float32)}
    weights |= {f"layer{i}": random.standard_normal((_WIDTH, _WIDTH), np.float32) * scale for i in range(_LAYERS)}
    weights["narrow"] = random.standard_normal((_WIDTH, SCORES), np.float32) * scale
    order = ["widen", *[f"layer{i}" for _ in range(passes) for i in range(_LAYERS)]]
    nodes, current = [], "features"
    for step, name in enumerate(order):
        nodes.append(helper.make_node("MatMul", [current, name], [f"sum{step}"]))
        nodes.append(helper.make_node("Relu", [f"sum{step}"], [f"out{step}"]))
        current = f"out{step}"
    nodes.append(helper.make_node("MatMul", [current, "narrow"], ["scores"]))
    graph = helper.make_graph(
        nodes,
        "heavy",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", FEATURES])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", SCORES])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    save(graph, path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write a compute-heavy ONNX model.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--milliseconds", type=float, default=1.5, help="per row on one core, about")
    arguments = parser.parse_args()
    write(arguments.file, row_ms=arguments.milliseconds)
    print(f"wrote {arguments.file} ({arguments.file.stat().st_size / 1e6:.0f} MB)")


if __name__ == "__main__":
    main()

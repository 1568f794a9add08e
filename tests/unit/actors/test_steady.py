"""Which models take the same time whatever the values in their inputs are."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper, save

from actors.steady import is_steady
from hivefold.models import inspect_onnx
from tests.fixtures.onnx_models import doubling_model


def test_a_network_of_plain_layers_is_steady() -> None:
    """Its work follows from its shapes."""
    assert is_steady({"Gemm", "Relu", "Softmax", "ArgMax"})


@pytest.mark.parametrize("operator", ["Loop", "If", "Scan", "Range", "Expand", "Tile", "NonZero", "Foreign", ""])
def test_one_operator_that_values_may_make_slow_is_enough(operator: str) -> None:
    """Unknown ones count as such."""
    assert not is_steady({"Gemm", operator})
    assert not is_steady(set())


def test_operators_inside_others_count(tmp_path: Path) -> None:
    """A branch hides nothing."""
    then = helper.make_graph(
        [helper.make_node("Expand", ["x", "shape"], ["a"])],
        "then",
        [],
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["b"])],
        "else",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["flag"], ["y"], then_branch=then, else_branch=other)],
        "branches",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [None]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, [1]),
            helper.make_tensor_value_info("shape", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(tmp_path / "m.onnx"))
    assert inspect_onnx(tmp_path / "m.onnx").operators == {"If", "Expand", "Identity"}
    doubling_model(tmp_path / "plain.onnx")
    assert inspect_onnx(tmp_path / "plain.onnx").operators == {"Add"}

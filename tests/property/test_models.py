"""Laws of inspect_onnx: whatever the bytes, the answer is facts or a refusal."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from hivefold.errors import DataRefusedError
from hivefold.models import OnnxFacts, inspect_onnx


def valid_model() -> bytes:
    weights = numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    node = helper.make_node("Scale", ["x", "w"], ["y"], domain="local")
    body = [helper.make_node("MatMul", ["a", "b"], ["c"])]
    function = helper.make_function("local", "Scale", ["a", "b"], ["c"], body, [helper.make_opsetid("", 17)])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [weights],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, functions=[function]).SerializeToString())


MODEL = valid_model()


def facts_or_refusal(content: bytes) -> OnnxFacts | None:
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        Path(file.name).write_bytes(content)
        try:
            return inspect_onnx(file.name)
        except DataRefusedError:
            return None


@given(st.binary(max_size=200))
def test_random_bytes_give_a_refusal(content: bytes) -> None:
    """Nothing but DataRefusedError ever comes out."""
    assert facts_or_refusal(content) is None


@given(st.lists(st.tuples(st.integers(0, len(MODEL) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_model_gives_facts_or_a_refusal(changes: list[tuple[int, int]]) -> None:
    """Bytes flipped anywhere never raise anything else."""
    damaged = bytearray(MODEL)
    for position, value in changes:
        damaged[position] = value
    facts_or_refusal(bytes(damaged))


@given(st.integers(0, len(MODEL)), st.binary(max_size=20))
def test_a_cut_model_with_any_tail_gives_facts_or_a_refusal(size: int, tail: bytes) -> None:
    """So do truncations and what is appended to them."""
    facts_or_refusal(MODEL[:size] + tail)

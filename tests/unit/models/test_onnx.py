"""inspect_onnx: what it reads from a model file, and what it refuses."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hivefold.errors import DataRefusedError, Reason
from hivefold.models import TensorFacts, inspect_onnx

WEIGHTS = numpy_helper.from_array(np.ones((4, 2), np.float32), "w")


def tensor(name: str, shape: list[int | str | None] | None, data_type: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, data_type, shape)


def build(
    nodes: list[onnx.NodeProto] | None = None,
    inputs: list[onnx.ValueInfoProto] | None = None,
    outputs: list[onnx.ValueInfoProto] | None = None,
    functions: list[onnx.FunctionProto] | None = None,
    domains: tuple[str, ...] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes or [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        inputs or [tensor("x", ["n", 4])],
        outputs or [tensor("y", [None, 2])],
        [WEIGHTS],
    )
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(
        graph, opset_imports=opsets, functions=functions or [], producer_name="me", producer_version="1"
    )


def external(given: onnx.TensorProto) -> onnx.TensorProto:
    moved = onnx.TensorProto()
    moved.CopyFrom(given)
    moved.ClearField("raw_data")
    moved.data_location = TensorProto.EXTERNAL
    moved.external_data.add(key="location", value="../weights.bin")
    return moved


@pytest.fixture
def save(tmp_path: Path) -> Callable[[onnx.ModelProto | bytes], Path]:
    def saved(model: onnx.ModelProto | bytes) -> Path:
        path = tmp_path / "m.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return path

    return saved


Save = Callable[[onnx.ModelProto | bytes], Path]


def refusal(path: Path) -> DataRefusedError:
    with pytest.raises(DataRefusedError) as caught:
        inspect_onnx(path)
    return caught.value


def test_a_model_declares_its_tensors_operator_set_producer_and_weights(save: Save) -> None:
    """Free dimensions read as -1, whether they have a name or not."""
    facts = inspect_onnx(save(build()))
    assert facts.inputs == (TensorFacts("x", "FP32", (-1, 4)),)
    assert facts.outputs == (TensorFacts("y", "FP32", (-1, 2)),)
    assert (facts.opset, facts.producer, facts.parameter_bytes) == (17, "me 1", 4 * 2 * 4)


def test_an_initializer_listed_as_input_is_no_input(save: Save) -> None:
    """Files before IR version 4 list their weights among the inputs."""
    facts = inspect_onnx(save(build(inputs=[tensor("x", ["n", 4]), tensor("w", [4, 2])])))
    assert [given.name for given in facts.inputs] == ["x"]


@pytest.mark.parametrize(
    ("content", "fix"),
    [
        (b"", "empty"),
        (pickle.dumps({"weights": [1, 2, 3]}), "pickle"),
        (b"PK\x03\x04" + bytes(40), "PyTorch"),
        (b"hello, this is a text file\n", "text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        (b"\x93NUMPY\x01\x00" + bytes(60), "NumPy"),
        (b"\x18\x00\x00\x00ORTM" + bytes(60), ".onnx file it was made from"),
        (b"\xff" * 64, "copied whole"),
        (bytes(64), "copied whole"),
    ],
)
def test_what_is_no_model_is_refused_with_the_way_out(save: Save, content: bytes, fix: str) -> None:
    """Each kind of foreign file gets its own advice."""
    error = refusal(save(content))
    assert error.reason is Reason.MODEL_INVALID
    assert fix in error.message


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    """What the system says is passed on."""
    for path in (tmp_path / "none.onnx", tmp_path):
        error = refusal(path)
        assert error.reason is Reason.FILE_UNREADABLE
        assert str(path) in error.message


def test_every_truncation_is_refused_as_invalid(save: Save) -> None:
    """No prefix of a small model is taken for a model, and none raises anything else."""
    whole = build().SerializeToString()
    for size in range(len(whole)):
        assert refusal(save(whole[:size])).reason is Reason.MODEL_INVALID


def subgraph_with(given: onnx.TensorProto) -> onnx.NodeProto:
    branch = helper.make_graph([], "b", [], [tensor("w", [4, 2])], [given])
    return helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)


def sparse(values: onnx.TensorProto) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(8, np.int64), "i"), [64])


def external_models() -> dict[str, onnx.ModelProto]:
    moved = external(WEIGHTS)
    values = external(numpy_helper.from_array(np.ones(8, np.float32), "s"))
    constant = helper.make_node("Constant", [], ["y"], value=moved)
    initializer, sparse_initializer = build(), build()
    initializer.graph.initializer[0].CopyFrom(moved)
    sparse_initializer.graph.sparse_initializer.append(sparse(values))
    location_only = build()
    location_only.graph.initializer[0].data_location = TensorProto.EXTERNAL
    training = build()
    training.training_info.add().algorithm.initializer.append(moved)
    function = helper.make_function("local", "f", ["x"], ["y"], [constant], [helper.make_opsetid("", 17)])
    call = helper.make_node("f", ["x"], ["y"], domain="local")
    return {
        "initializer": initializer,
        "location without entries": location_only,
        "sparse initializer": sparse_initializer,
        "constant": build([constant]),
        "sparse constant": build([helper.make_node("Constant", [], ["y"], sparse_value=sparse(values))]),
        "list attribute": build([helper.make_node("Any", [], ["y"], tensors=[moved])]),
        "subgraph": build([subgraph_with(moved)]),
        "function": build([call], functions=[function], domains=("local",)),
        "unused function": build(functions=[function], domains=("local",)),
        "training": training,
        "compiled context": build([helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")]),
    }


@pytest.mark.parametrize("place", external_models())
def test_external_data_is_refused_wherever_it_hides(save: Save, place: str) -> None:
    """ONNX Runtime would open other files for these: the model never reaches it."""
    error = refusal(save(external_models()[place]))
    assert error.reason is Reason.MODEL_EXTERNAL_DATA
    assert "one file" in error.message


def test_an_input_of_absurd_size_is_refused(save: Save) -> None:
    """A runtime would plan memory for it."""
    error = refusal(save(build(inputs=[tensor("x", [1 << 40, 1 << 40])])))
    assert error.reason is Reason.MODEL_INVALID
    assert "absurd shape" in error.message


def function(name: str, *calls: str) -> onnx.FunctionProto:
    nodes = [helper.make_node(call, ["x"], ["y"], domain="local") for call in calls]
    return helper.make_function("local", name, ["x"], ["y"], nodes, [helper.make_opsetid("", 17)])


def test_functions_of_the_file_are_operators(save: Save) -> None:
    """Exporters that keep their own operators as functions are accepted."""
    call = helper.make_node("f", ["x"], ["y"], domain="local")
    assert inspect_onnx(save(build([call], functions=[function("f")], domains=("local",)))).opset == 17


@pytest.mark.parametrize(
    ("functions", "why"),
    [
        ([function("f", "f")], "without end"),
        ([function("f", "g"), function("g", "f")], "without end"),
        (
            [function(f"f{i}", *[f"f{i + 1}"] * 8) for i in range(12)] + [function("f", "f0"), function("f12", "f13")],
            "",
        ),
        ([function("f"), function("f")], "twice"),
        ([function("f", "missing")], "custom domain 'local'"),
    ],
)
def test_functions_that_never_end_or_are_missing_are_refused(
    save: Save, functions: list[onnx.FunctionProto], why: str
) -> None:
    """Recursion and exponential unfolding are found without unfolding."""
    call = helper.make_node("f", ["x"], ["y"], domain="local")
    error = refusal(save(build([call], functions=functions, domains=("local",))))
    assert error.reason is Reason.MODEL_INVALID
    assert why in error.message


def test_unfolding_beyond_the_limit_is_refused(save: Save) -> None:
    """Eight calls each, ten deep, are a thousand million nodes in a few hundred bytes."""
    chain = [function(f"f{i}", *[f"f{i + 1}"] * 8) for i in range(10)]
    leaf = helper.make_function(
        "local", "f10", ["x"], ["y"], [helper.make_node("Abs", ["x"], ["y"])], [helper.make_opsetid("", 17)]
    )
    call = helper.make_node("f0", ["x"], ["y"], domain="local")
    assert "unfolded" in refusal(save(build([call], functions=[*chain, leaf], domains=("local",)))).message


def test_operators_of_a_custom_domain_are_refused(save: Save) -> None:
    """No operator library is ever loaded."""
    error = refusal(save(build([helper.make_node("Evil", ["x"], ["y"], domain="my.ops")], domains=("my.ops",))))
    assert error.reason is Reason.MODEL_INVALID
    assert "'my.ops'" in error.message


def test_graphs_nested_beyond_the_limit_are_refused(save: Save) -> None:
    """Recursion is bounded by the walker, not by the stack."""
    node = helper.make_node("Abs", ["x"], ["y"])
    for _ in range(20):
        node = helper.make_node("If", ["c"], ["y"], then_branch=helper.make_graph([node], "b", [], []))
    assert "nested deeper" in refusal(save(build([node]))).message


def test_outputs_that_are_no_tensors_and_missing_shapes_say_how_to_export(save: Save) -> None:
    """scikit-learn's default export gives a sequence of maps."""
    maps = helper.make_value_info(
        "y", helper.make_sequence_type_proto(helper.make_map_type_proto(7, helper.make_tensor_type_proto(1, [])))
    )
    assert "zipmap=False" in refusal(save(build(outputs=[maps]))).message
    assert "infer_shapes" in refusal(save(build(outputs=[tensor("y", None)]))).message


def test_a_tensor_whose_bytes_do_not_fit_its_shape_is_refused(save: Save) -> None:
    """Neither a huge claimed shape nor short data gets through."""
    huge, short, negative = build(), build(), build()
    huge.graph.initializer[0].dims[:] = [1 << 40, 1 << 40]
    short.graph.initializer[0].dims[:] = [4, 3]
    negative.graph.initializer[0].dims[:] = [-4, 2]
    for model in (huge, short, negative):
        assert "'w'" in refusal(save(model)).message


def test_two_graphs_are_refused(save: Save) -> None:
    """protobuf would merge them; what is inspected must be what runs."""
    whole = build().SerializeToString()
    assert "more than one graph" in refusal(save(whole + whole)).message

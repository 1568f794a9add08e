"""The model behaviour, called as its actor calls it: every refusal comes before the runtime sees a tensor."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from actors.backends.echo import EchoBackend
from actors.backends.onnxruntime import OnnxRuntimeBackend
from actors.model import (
    CancelFlag,
    Inferred,
    InferRows,
    LaneBehavior,
    Loaded,
    LoadModel,
    ModelBehavior,
    OpenModel,
    Run,
    UnloadModel,
)
from actors.tensors import Layout
from hivefold.errors import DataRefusedError, HivefoldError, Reason
from tests.fixtures.onnx_models import doubling_model, looking_up_model, save_model

ROWS = np.arange(40, dtype="<f4").reshape(10, 4)
LAYOUT = Layout("FP32", (4,))


def request(rows: np.ndarray[tuple[int, ...], np.dtype[np.generic]] = ROWS, /, **changes: object) -> InferRows:
    values: dict[str, object] = {
        "data": rows.tobytes(),
        "layout": LAYOUT,
        "first_row": 100,
        "row_count": len(rows),
        **changes,
    }
    return InferRows(**values)  # type: ignore[arg-type]


def kept(path: Path, backend: EchoBackend | OnnxRuntimeBackend | None = None) -> tuple[ModelBehavior, Loaded]:
    if not path.exists():
        doubling_model(path)
    behavior = ModelBehavior(backend or OnnxRuntimeBackend(1))
    behavior.start()
    reply = behavior.receive(LoadModel(path, hashlib.sha256(path.read_bytes()).hexdigest()))
    assert reply is not None
    return behavior, reply


def loaded(path: Path, backend: EchoBackend | OnnxRuntimeBackend | None = None) -> OpenModel:
    return kept(path, backend)[1].model


def inferred(model: OpenModel, message: InferRows) -> Inferred:
    reply = LaneBehavior().receive(Run(model, message))
    assert isinstance(reply, Inferred)
    return reply


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    doubling_model(path)
    return path


def test_outputs_come_row_by_row_with_their_digest(model: Path) -> None:
    """Bytes, shape and SHA-256 describe the same tensor."""
    reply = inferred(loaded(model), request())
    np.testing.assert_array_equal(np.frombuffer(reply.data, "<f4").reshape(10, 4), ROWS * 2)
    assert [(tensor.name, tensor.data_type, tensor.shape) for tensor in reply.tensors] == [("y", "FP32", (10, 4))]
    assert reply.digest == hashlib.sha256(reply.data).hexdigest()


@pytest.mark.parametrize("batch_rows", [1, 3, 10, 1000])
def test_the_batch_size_changes_no_output(model: Path, batch_rows: int) -> None:
    """Also when it does not divide the rows."""
    behavior = loaded(model)
    assert inferred(behavior, request(batch_rows=batch_rows)).data == inferred(behavior, request()).data


def test_batches_have_the_size_that_was_asked_for(model: Path) -> None:
    """The last one holds the rest."""
    backend = EchoBackend()
    inferred(loaded(model, backend), request(batch_rows=4))
    assert backend.batches == [4, 4, 2]


def test_a_model_with_a_fixed_batch_gets_exactly_that(tmp_path: Path) -> None:
    """The last batch is filled up, and the filling is cut off again."""
    path = tmp_path / "fixed.onnx"
    save_model(path, [("Add", ["x", "x"], "y")], [4, 4])
    reply = inferred(loaded(path), request(batch_rows=7))
    np.testing.assert_array_equal(np.frombuffer(reply.data, "<f4").reshape(10, 4), ROWS * 2)


def test_wanted_outputs_come_in_the_wanted_order(model: Path) -> None:
    """And only those."""
    behavior = loaded(model, EchoBackend())
    reply = inferred(behavior, request(outputs=("total", "echo")))
    assert [tensor.name for tensor in reply.tensors] == ["total", "echo"]
    np.testing.assert_array_equal(np.frombuffer(reply.data[:40], "<f4"), ROWS.sum(axis=1))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layout": Layout("FP64", (4,)), "data": ROWS.astype("<f8").tobytes()}, Reason.DATA_TYPE_MISMATCH),
        ({"layout": Layout("BYTES", (4,))}, Reason.DATA_TYPE_MISMATCH),
        ({"layout": Layout("FP32", (2, 2))}, Reason.SHAPE_MISMATCH),
        ({"layout": Layout("FP32", (5,)), "row_count": 8}, Reason.SHAPE_MISMATCH),
        ({"row_count": 9}, Reason.DATA_INVALID),
        ({"data": b"", "row_count": 0}, Reason.DATA_INVALID),
        ({"data": ROWS.tobytes()[:-1]}, Reason.DATA_INVALID),
        ({"outputs": ("z",)}, Reason.INVALID_ARGUMENT),
    ],
)
def test_rows_that_do_not_fit_are_refused_before_the_runtime_sees_them(
    model: Path, change: dict[str, object], reason: Reason
) -> None:
    """With the reason; the behaviour goes on with the next rows."""
    backend = EchoBackend()
    behavior = loaded(model, backend)
    with pytest.raises(DataRefusedError) as refusal:
        behavior.run(request(**change))
    assert refusal.value.reason is reason
    assert backend.batches == []
    assert inferred(behavior, request()).tensors


def test_nan_is_refused_with_its_row_or_allowed(model: Path) -> None:
    """The row is counted in the whole data set."""
    rows = ROWS.copy()
    rows[7, 1] = np.nan
    behavior = loaded(model)
    with pytest.raises(DataRefusedError, match="row 107") as refusal:
        behavior.run(request(rows))
    assert refusal.value.reason is Reason.NAN_FOUND
    assert refusal.value.metadata == {"row": "107"}
    assert np.isnan(np.frombuffer(inferred(behavior, request(rows, nan_allowed=True)).data, "<f4")).sum() == 1


def test_infinity_is_no_nan(model: Path) -> None:
    """Of both signs, in the same row."""
    rows = ROWS.copy()
    rows[0, :2] = np.inf, -np.inf
    assert inferred(loaded(model), request(rows)).tensors


def test_a_cancelled_attempt_ends_between_two_batches(model: Path) -> None:
    """With the reason that it was given."""
    cancel = CancelFlag()
    cancel.reason = Reason.CANCELLED
    backend = EchoBackend()
    with pytest.raises(HivefoldError) as error:
        loaded(model, backend).run(request(cancel=cancel, batch_rows=1))
    assert error.value.reason is Reason.CANCELLED
    assert backend.batches == []


def test_an_output_that_is_not_per_row_is_refused(tmp_path: Path) -> None:
    """A sum over all rows cannot be put back together from parts."""
    path = tmp_path / "sum.onnx"
    save_model(path, [("ReduceSum", ["x"], "y")], [None, 4])
    with pytest.raises(DataRefusedError, match="one entry per row") as refusal:
        loaded(path).run(request())
    assert refusal.value.reason is Reason.MODEL_INVALID


def test_a_model_that_the_runtime_does_not_load_is_refused(tmp_path: Path) -> None:
    """The scan cannot know every operator's attributes."""
    path = tmp_path / "incomplete.onnx"
    save_model(path, [("Concat", ["x", "x"], "c"), ("Cast", ["c"], "y")], [None, 4])
    with pytest.raises(DataRefusedError) as refusal:
        loaded(path)
    assert refusal.value.reason is Reason.MODEL_INVALID


def test_a_file_with_other_bytes_than_its_digest_is_not_loaded(model: Path) -> None:
    """Neither inspected nor opened."""
    backend = EchoBackend()
    with pytest.raises(DataRefusedError) as refusal:
        ModelBehavior(backend).receive(LoadModel(model, "0" * 64))
    assert refusal.value.reason is Reason.DIGEST_MISMATCH
    assert backend.opened == []


def test_a_file_that_is_no_model_is_not_opened(tmp_path: Path) -> None:
    """The scan comes first."""
    path = tmp_path / "m.onnx"
    path.write_bytes(b"PK\x03\x04 not a model")
    backend = EchoBackend()
    with pytest.raises(DataRefusedError) as refusal:
        loaded(path, backend)
    assert refusal.value.reason is Reason.MODEL_INVALID
    assert backend.opened == []


def test_no_value_of_a_row_is_in_what_the_runtime_says_of_it(tmp_path: Path) -> None:
    """Failures are recorded, and records cannot be erased: the operator and its name are there, the value is not."""
    looking_up_model(tmp_path / "m.onnx")
    rows = np.array([[0, 1, 2, 3], [0, -271828, 2, 3]])
    with pytest.raises(DataRefusedError) as error:
        inferred(loaded(tmp_path / "m.onnx"), request(rows, layout=Layout("INT64", (4,))))

    assert error.value.reason is Reason.RUNTIME_FAILED
    assert "running Gather node. Name:'/layers.0/Gather_1'" in error.value.message
    assert "idx=# must be within" in error.value.message
    assert "271828" not in error.value.message


def test_loading_the_same_model_again_does_nothing(model: Path) -> None:
    """Idempotent, and it says what the model takes and gives."""
    backend = EchoBackend()
    behavior, first = kept(model, backend)
    reply = behavior.receive(LoadModel(model, hashlib.sha256(model.read_bytes()).hexdigest()))
    assert reply is first
    assert [tensor.name for tensor in reply.inputs] == ["x"]
    assert len(backend.opened) == 1


def test_an_unloaded_model_refuses_rows(model: Path) -> None:
    """Whoever still runs it when it goes, for it was left, gets an error."""
    behavior, reply = kept(model)
    behavior.receive(UnloadModel())
    with pytest.raises(HivefoldError) as error:
        inferred(reply.model, request())
    assert error.value.reason is Reason.RUNTIME_FAILED


@pytest.mark.parametrize(
    ("data_type", "tensor_type"),
    [("INT64", TensorProto.INT64), ("FP64", TensorProto.DOUBLE), ("UINT8", TensorProto.UINT8)],
)
def test_other_element_types_pass_unchanged(tmp_path: Path, data_type: str, tensor_type: int) -> None:
    """Rows in, the same rows out."""
    path = tmp_path / "identity.onnx"
    save_model(path, [("Identity", ["x"], "y")], [None, 4], x=tensor_type, y=tensor_type)
    rows = np.arange(40).reshape(10, 4).astype({"INT64": "<i8", "FP64": "<f8", "UINT8": "u1"}[data_type])
    reply = inferred(loaded(path), request(rows, layout=Layout(data_type, (4,))))
    assert reply.data == rows.tobytes()
    assert reply.tensors[0].data_type == data_type

"""Requests against a model's inputs and outputs: what does not fit is named."""

from __future__ import annotations

from typing import Any

import pytest

from actors.signature import Signature
from hivefold.errors import DataRefusedError, Reason
from hivefold.models import TensorFacts
from hivefold.oip.requests import InferRequest
from hivefold.oip.tensors import WireTensor

IDS = TensorFacts("ids", "INT64", (-1, -1))
MASK = TensorFacts("mask", "BOOL", (-1, 3))
SCORE = TensorFacts("score", "FP32", (-1,))
CLASS = TensorFacts("class", "INT64", (-1,))
MODEL = Signature((IDS, MASK), (SCORE, CLASS))


def ids(rows: int = 2, width: int = 5, **changes: Any) -> WireTensor:
    return WireTensor("ids", "INT64", (rows, width), bytes(8 * rows * width))._replace(**changes)


def mask(rows: int = 2) -> WireTensor:
    return WireTensor("mask", "BOOL", (rows, 3), bytes(3 * rows))


def request(*inputs: WireTensor, outputs: tuple[str, ...] = ()) -> InferRequest:
    return InferRequest("m", "", "", inputs, outputs)


def test_inputs_come_in_the_models_order() -> None:
    """Whatever the request's; without a wish all outputs are wanted."""
    fitted = MODEL.fit(request(mask(), ids()))
    assert [tensor.shape for tensor in fitted.feed.tensors] == [(2, 5), (2, 3)]
    assert fitted.outputs == ("score", "class")
    assert fitted.feed.rows == 2
    assert fitted.size_bytes == 86


def test_only_requests_with_the_same_rows_share_a_batch() -> None:
    """The number of rows may differ, the shape of a row and the wanted outputs may not."""
    shape = MODEL.fit(request(ids(), mask())).shape
    assert MODEL.fit(request(ids(7), mask(7))).shape == shape
    assert MODEL.fit(request(ids(width=6), mask())).shape != shape
    assert MODEL.fit(request(ids(), mask(), outputs=("class",))).shape != shape


@pytest.mark.parametrize(
    ("inputs", "outputs", "field", "reason"),
    [
        ((ids(), mask(), ids(name="more")), (), "inputs[2].name", Reason.INVALID_ARGUMENT),
        ((ids(), ids()), (), "inputs[1].name", Reason.INVALID_ARGUMENT),
        ((ids(),), (), "inputs", Reason.INVALID_ARGUMENT),
        ((), (), "inputs", Reason.INVALID_ARGUMENT),
        ((mask(), ids(data_type="INT32")), (), "inputs[1].datatype", Reason.DATA_TYPE_MISMATCH),
        ((ids(shape=(10,)), mask()), (), "inputs[0].shape", Reason.SHAPE_MISMATCH),
        ((ids(), WireTensor("mask", "BOOL", (2, 4), bytes(8))), (), "inputs[1].shape", Reason.SHAPE_MISMATCH),
        ((ids(3), mask()), (), "inputs[1].shape", Reason.SHAPE_MISMATCH),
        ((ids(), mask()), ("score", "loss"), "outputs[1].name", Reason.INVALID_ARGUMENT),
    ],
)
def test_what_does_not_fit_is_named(
    inputs: tuple[WireTensor, ...], outputs: tuple[str, ...], field: str, reason: Reason
) -> None:
    """The field, with its index, and the reason."""
    with pytest.raises(DataRefusedError) as refusal:
        MODEL.fit(request(*inputs, outputs=outputs))
    assert refusal.value.metadata["field"] == field
    assert refusal.value.violations[0].field == field
    assert refusal.value.reason is reason


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ((TensorFacts("x", "FP32", (1, 4)),), (SCORE,)),
        ((IDS,), (TensorFacts("total", "FP32", ()),)),
        ((IDS, TensorFacts("scale", "FP32", ())), (SCORE,)),
        ((), (SCORE,)),
    ],
)
def test_without_a_free_first_axis_everywhere_nothing_is_batched(
    inputs: tuple[TensorFacts, ...], outputs: tuple[TensorFacts, ...]
) -> None:
    """A fixed size, a scalar: such requests are run one by one."""
    assert not Signature(inputs, outputs).batchable
    assert MODEL.batchable


def test_a_scalar_is_an_input_like_others() -> None:
    """It counts as one row."""
    scale = Signature((TensorFacts("scale", "FP32", ()),), (SCORE,))
    fitted = scale.fit(request(WireTensor("scale", "FP32", (), bytes(4))))
    assert (fitted.feed.rows, fitted.shape) == (1, None)

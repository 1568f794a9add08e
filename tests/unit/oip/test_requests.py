"""Requests as bytes, fixed for ever: what is taken, and what is refused with the field's name."""

from __future__ import annotations

from typing import Any

import pytest

from hivefold.errors import InvalidRequestError
from hivefold.oip.limits import RAW_IN_PLACE_BYTES
from hivefold.oip.requests import InferRequest, address, open_request, write_request
from hivefold.oip.schema import ModelInferRequest
from hivefold.oip.tensors import WireTensor

GOLDEN = bytes.fromhex(
    "0a06646967697473"  # model_name: digits
    "120133"  # model_version: 3
    "1a027231"  # id: r1
    "2a0d0a01781204465033321a020102"  # inputs: x FP32 [1, 2]
    "32030a0179"  # outputs: y
    "3a080000803f00000040"  # raw_input_contents: 1.0 2.0
)
RAW = WireTensor("x", "FP32", (1, 2), bytes.fromhex("0000803f00000040"))


def message(**changes: Any) -> Any:
    built = write_request(InferRequest("m", "", "", (RAW,), ()))
    for name, value in changes.items():
        setattr(built, name, value)
    return built


def refusal(built: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as error:
        open_request(address(built.SerializeToString()))
    return error.value


def test_a_request_recorded_as_bytes_is_read() -> None:
    """Byte by byte as any client would write it."""
    read = open_request(address(GOLDEN))
    assert read == InferRequest("digits", "3", "r1", (RAW,), ("y",))


def test_parameters_are_read() -> None:
    """Priority of any integer kind, time-out in microseconds, Triton's wish for a mark on the last answer."""
    built = message()
    built.parameters["priority"].int64_param = 1
    built.parameters["timeout"].string_param = "2500"
    built.parameters["triton_enable_empty_final_response"].bool_param = True
    built.parameters["of the caller's own"].double_param = 0.5
    read = open_request(address(built.SerializeToString()))
    assert (read.priority, read.timeout_us, read.mark_final) == (1, 2500, True)


def both() -> Any:
    built = message()
    built.inputs[0].contents.fp32_contents.extend((1.0, 2.0))
    return built


def typed(data_type: str, field: str, values: list[Any], shape: tuple[int, ...]) -> Any:
    built = ModelInferRequest(model_name="m")
    given = built.inputs.add(name="x", datatype=data_type, shape=shape)
    getattr(given.contents, field).extend(values)
    return built


def with_parameter(name: str, number: int) -> Any:
    built = message()
    built.parameters[name].int64_param = number
    return built


def in_output(name: str) -> Any:
    built = message()
    built.outputs.add(name="y").parameters[name].int64_param = 3
    return built


def raw(*contents: bytes) -> Any:
    built = message()
    del built.raw_input_contents[:]
    built.raw_input_contents.extend(contents)
    return built


def crowd(count: int) -> Any:
    built = message()
    for _ in range(count):
        built.inputs.add(name="x")
    return built


def texts(count: int) -> Any:
    return write_request(InferRequest("m", "", "", (WireTensor("x", "BYTES", (count,), bytes(4 * count)),), ()))


def shaped(*shape: int, data_type: str = "FP32") -> Any:
    built = message()
    del built.inputs[0].shape[:]
    built.inputs[0].shape.extend(shape)
    built.inputs[0].datatype = data_type
    return built


@pytest.mark.parametrize(
    ("built", "field"),
    [
        pytest.param(message(model_name=""), "model_name", id="no model"),
        pytest.param(message(id="i" * 5000), "id", id="a huge id"),
        pytest.param(both(), "inputs[0].contents", id="raw and typed at once"),
        pytest.param(raw(RAW.data, RAW.data), "raw_input_contents", id="more contents than inputs"),  # type: ignore[arg-type]
        pytest.param(raw(b"1234567"), "raw_input_contents[0]", id="a byte too few"),
        pytest.param(raw(), "inputs[0].contents", id="no contents"),
        pytest.param(shaped(1, -2), "inputs[0].shape", id="a negative size"),
        pytest.param(shaped(*[1] * 9), "inputs[0].shape", id="too many dimensions"),
        pytest.param(shaped(2**40, 2**40), "inputs[0].shape", id="an absurd size"),
        pytest.param(shaped(1, 2, data_type="FP8"), "raw_input_contents[0]", id="no such type"),
        pytest.param(typed("FP16", "fp32_contents", [1.0], (1,)), "inputs[0].contents", id="typed FP16"),
        pytest.param(
            typed("FP32", "fp64_contents", [1.0], (1,)), "inputs[0].contents.fp64_contents", id="another type's field"
        ),
        pytest.param(typed("FP32", "fp32_contents", [1.0], (2,)), "inputs[0].contents", id="an element too few"),
        pytest.param(
            typed("INT8", "int_contents", [128], (1,)), "inputs[0].contents.int_contents", id="a number out of range"
        ),
        pytest.param(crowd(1000), "inputs", id="more inputs than any model has"),
        pytest.param(texts(300_000), "inputs[0].shape", id="more texts than are gone through"),
        pytest.param(
            typed("FP32", "fp32_contents", [1.0] * 1_100_000, (1_100_000,)),
            "inputs[0].contents.fp32_contents",
            id="more typed contents than are gone through",
        ),
        pytest.param(with_parameter("priority", 4), "parameters.priority", id="no such priority"),
        pytest.param(with_parameter("timeout", -1), "parameters.timeout", id="a time-out before arrival"),
        pytest.param(with_parameter("sequence_id", 7), "parameters.sequence_id", id="a sequence"),
        pytest.param(in_output("classification"), "outputs[0].classification", id="classification"),
    ],
)
def test_what_no_model_could_take_is_refused_by_name(built: Any, field: str) -> None:
    """The field is in the message, in the metadata and in the violations."""
    error = refusal(built)
    assert error.metadata["field"] == field
    assert error.violations[0].field == field
    assert error.message.startswith(f"{field}: ")


def test_contents_of_a_large_request_are_not_copied() -> None:
    """They stay where they lie in the message."""
    tensor = WireTensor("x", "UINT8", (RAW_IN_PLACE_BYTES,), bytes(RAW_IN_PLACE_BYTES))
    data = write_request(InferRequest("m", "", "", (tensor,), ())).SerializeToString()
    (read,) = open_request(address(data)).inputs
    assert isinstance(read.data, memoryview)
    assert read.data.obj is data


@pytest.mark.parametrize("data", [b"\xff", GOLDEN[:-1], b"\x0a\x02\xc3\x28"])
def test_bytes_that_are_no_request_are_refused(data: bytes) -> None:
    """Cut short, no protobuf at all, text that is no UTF-8."""
    with pytest.raises(InvalidRequestError):
        open_request(address(data))

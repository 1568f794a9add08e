"""Laws of the inference codec: what is written is read back as it was, and no bytes bring anything but a refusal."""

from __future__ import annotations

import contextlib
import struct
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from hivefold.errors import InvalidRequestError
from hivefold.oip import requests
from hivefold.oip.requests import InferRequest, address, open_request, write_request
from hivefold.oip.responses import OutputTensor, ResponseWriter, read_response
from hivefold.oip.schema import ModelInferRequest, ModelInferResponse
from hivefold.oip.tensors import DATA_TYPES, ITEM_BYTES, WireTensor, from_array, join_bytes, split_bytes, to_array

NAMES = st.text(min_size=1, max_size=8)
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
TYPED = [data_type for data_type in DATA_TYPES if data_type not in {"FP16", "BF16"}]
FIELDS = {
    "BOOL": "bool_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
}


@st.composite
def tensors(draw: st.DrawFn, data_types: list[str] | None = None, name: str = "x") -> WireTensor:
    data_type = draw(st.sampled_from(data_types or list(DATA_TYPES)))
    shape = draw(SHAPES)
    count = prod(shape)
    if data_type == "BYTES":
        data = join_bytes(draw(st.lists(st.binary(max_size=5), min_size=count, max_size=count)))
    elif data_type == "BOOL":
        data = bytes(draw(st.lists(st.sampled_from((0, 1)), min_size=count, max_size=count)))
    else:
        size = count * ITEM_BYTES[data_type]
        data = draw(st.binary(min_size=size, max_size=size))
    return WireTensor(name, data_type, shape, data)


@st.composite
def infer_requests(draw: st.DrawFn) -> InferRequest:
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    return InferRequest(
        model_name=draw(NAMES),
        model_version=draw(st.sampled_from(("", "1", "37"))),
        id=draw(st.text(max_size=20)),
        inputs=tuple(draw(tensors(name=name)) for name in names),
        outputs=tuple(draw(st.lists(NAMES, max_size=3, unique=True))),
        priority=draw(st.sampled_from((1, 2, 3))),
        timeout_us=draw(st.integers(0, 2**40)),
    )


def same(request: InferRequest) -> InferRequest:
    return request._replace(inputs=tuple(tensor._replace(data=bytes(tensor.data)) for tensor in request.inputs))


@given(infer_requests())
def test_a_request_is_read_as_it_was_written(request: InferRequest) -> None:
    """Every type and shape; whether or not its bytes stay in the message."""
    data = write_request(request).SerializeToString()
    assert same(open_request(address(data))) == request


@given(infer_requests())
def test_bytes_left_in_the_message_are_the_same_bytes(request: InferRequest) -> None:
    """A large message is cut open by hand: that finds what protobuf finds."""
    data = write_request(request).SerializeToString()
    head, raw = requests._without_raw(data)
    assert raw is not None
    assert [bytes(part) for part in raw] == [tensor.data for tensor in request.inputs]
    rest = ModelInferRequest.FromString(bytes(head))
    assert not rest.raw_input_contents
    assert rest.id == request.id
    assert len(rest.inputs) == len(request.inputs)


@given(tensors(TYPED))
def test_typed_contents_mean_the_same_as_raw_ones(tensor: WireTensor) -> None:
    """Element by element, in the field that the type has."""
    message = ModelInferRequest(model_name="m")
    given_input = message.inputs.add(name="x", datatype=tensor.data_type, shape=tensor.shape)
    array = to_array(tensor)
    values = split_bytes(tensor.data) if tensor.data_type == "BYTES" else array.ravel().tolist()
    given_input.contents.SetInParent()
    getattr(given_input.contents, FIELDS[tensor.data_type]).extend(values)
    (read,) = open_request(address(message.SerializeToString())).inputs
    if tensor.data_type in {"FP32", "FP64"}:  # a signalling NaN may come back as a quiet one
        np.testing.assert_array_equal(to_array(read), array)
    else:
        assert (read.shape, bytes(read.data)) == (tensor.shape, tensor.data)


@given(st.lists(tensors(), min_size=1, max_size=3), st.text(max_size=200), st.booleans())
def test_a_response_is_read_as_it_was_written(outputs: list[WireTensor], request_id: str, final: bool) -> None:
    """Written by hand from pieces, read by protobuf: always raw, the id echoed."""
    writer = ResponseWriter("m", "3")
    names = [(f"{index}", tensor.data_type) for index, tensor in enumerate(outputs)]
    parts = [OutputTensor(tensor.shape, tensor.data) for tensor in outputs]
    for _ in range(2):  # the second time from what was kept
        message = ModelInferResponse.FromString(writer.write(request_id, names, parts, final=final))
        assert (message.model_name, message.model_version, message.id) == ("m", "3", request_id)
        assert ("triton_final_response" in message.parameters) == final
        assert all(not output.HasField("contents") for output in message.outputs)
        read = read_response(message)
        assert [(one.name, one.data_type) for one in read] == names
        assert [(one.shape, bytes(one.data)) for one in read] == [(one.shape, one.data) for one in outputs]


@given(some.arrays(some.scalar_dtypes().filter(lambda kind: kind.kind in "biuf" and kind.itemsize <= 8), SHAPES))
def test_an_array_comes_back_as_it_went(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    """Of every type of numbers and either byte order."""
    back = to_array(from_array("x", array))
    assert back.dtype == array.dtype.newbyteorder("<")
    assert back.tobytes() == array.astype(back.dtype).tobytes()
    assert back.shape == array.shape


@given(some.arrays(np.float32, SHAPES))
def test_bf16_keeps_the_upper_half(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    """Within half a step of eight bits; what it holds already stays as it is."""
    back = to_array(from_array("x", array, "BF16"))
    again = to_array(from_array("x", back, "BF16"))
    np.testing.assert_array_equal(again, back)
    finite = np.isfinite(array) & np.isfinite(back) & (np.abs(array) > 1e-30)
    assert np.all(np.abs(back[finite] - array[finite]) <= np.abs(array[finite]) * 2**-8)
    np.testing.assert_array_equal(np.isnan(back), np.isnan(array))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    """Never anything else, by either way of reading."""
    for read in (lambda: open_request(address(data)), lambda: requests._without_raw(data)):
        with contextlib.suppress(InvalidRequestError):
            read()


@given(infer_requests(), st.data())
def test_a_damaged_request_is_a_request_or_refused(request: InferRequest, data: st.DataObject) -> None:
    """One byte changed, anywhere."""
    raw = bytearray(write_request(request).SerializeToString())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = open_request(address(bytes(raw)))
    except InvalidRequestError:
        return
    for tensor in read.inputs:
        if tensor.data_type != "BYTES":
            assert len(tensor.data) == prod(tensor.shape) * ITEM_BYTES[tensor.data_type]


@pytest.mark.parametrize("data", [struct.pack("<I", 9) + b"abc", b"\x00", struct.pack("<I", 2**32 - 1)])
def test_lengths_that_do_not_add_up_are_refused(data: bytes) -> None:
    """Without reading beyond the end."""
    request = InferRequest("m", "", "", (WireTensor("x", "BYTES", (1,), data),), ())
    with pytest.raises(InvalidRequestError, match="raw_input_contents"):
        open_request(address(write_request(request).SerializeToString()))

"""ModelInfer requests: read from their bytes and checked as far as that needs no model; and written, for clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError

from hivefold.errors import InvalidRequestError
from hivefold.models.wire import MalformedError, Span, Wire
from hivefold.oip.limits import (
    DEFAULT_PRIORITY,
    MESSAGE_FIELDS,
    MODEL_NAME_BYTES,
    PRIORITIES,
    RAW_IN_PLACE_BYTES,
    REQUEST_ID_BYTES,
    REQUEST_PARAMETERS,
    REQUEST_TENSORS,
)
from hivefold.oip.responses import varint
from hivefold.oip.schema import Message, ModelInferRequest
from hivefold.oip.tensors import Raw, WireTensor, check_raw, element_count, raw_of_contents, refused

_RAW_INPUT: Final = 7
_RAW_TAG: Final = b"\x3a"
"""Number of the field raw_input_contents, and its tag."""
_REFUSED: Final = {
    "sequence_id": "sequences are not supported: send each request for itself",
    "classification": "classification is not supported: ask for the output itself",
    "shared_memory_region": "shared memory is not supported: send the bytes in raw_input_contents",
    "binary_data": "belongs to the REST protocol; gRPC carries raw bytes in raw_input_contents",
}
"""Parameters that would change what the caller gets: to pass over them would be to answer another question."""


class InferRequest(NamedTuple):
    """A request whose tensors have the bytes that their types and shapes say."""

    model_name: str
    model_version: str
    id: str
    inputs: tuple[WireTensor, ...]
    outputs: tuple[str, ...]
    """The outputs that are wanted, in order; none means all."""
    priority: int = DEFAULT_PRIORITY
    timeout_us: int = 0
    """From arrival; 0 where there is none."""
    mark_final: bool = False
    """Whether a stream's answer says that it is the request's last."""


class Addressed(NamedTuple):
    """A request as far as its address was read: what is left is looked at where the model is."""

    model_name: str
    model_version: str
    id: str
    message: Message
    raw: Sequence[Raw]
    opened: InferRequest | None = None
    """All of it, where it was read and checked already; then `message` and `raw` are not given."""


def address(data: bytes) -> Addressed:
    """Reads which model a request is for. Raises InvalidRequestError for bytes that are no request."""
    raw: Sequence[Raw] | None = None
    head: Raw = data
    if len(data) >= RAW_IN_PLACE_BYTES:
        head, raw = _without_raw(data)
    try:
        message = ModelInferRequest.FromString(head)
    except DecodeError:
        raise InvalidRequestError("the message is no ModelInferRequest; send what the protocol's schema says") from None
    return address_message(message, raw)


def address_message(message: Message, raw: Sequence[Raw] | None = None) -> Addressed:
    """As `address`, of a message that was read already; `raw` stands for its raw contents where they were kept out."""
    name, version, request_id = message.model_name, message.model_version, message.id
    if len(name) > MODEL_NAME_BYTES or not name:
        raise refused("model_name", 'give the name of a registered model, as "digits"')
    if len(version) > MODEL_NAME_BYTES:
        raise refused("model_version", 'give a version as "3", or leave it empty for the latest')
    if len(request_id) > REQUEST_ID_BYTES:
        raise refused("id", f"is longer than {REQUEST_ID_BYTES} characters")
    return Addressed(name, version, request_id, message, message.raw_input_contents if raw is None else raw)


def open_request(addressed: Addressed) -> InferRequest:
    """Reads the rest and checks it. Raises InvalidRequestError, with the field's name, for what no model could take."""
    if addressed.opened is not None:
        return addressed.opened
    message, raw = addressed.message, addressed.raw
    inputs = message.inputs
    _refuse_crowds(message)
    if raw and len(raw) != len(inputs):
        raise refused(
            "raw_input_contents",
            f"has {len(raw)} entries for {len(inputs)} inputs; give one for each input, in their order",
        )
    tensors = tuple([_tensor(index, given, raw) for index, given in enumerate(inputs)])
    outputs = tuple([wanted.name for wanted in message.outputs])
    if len(outputs) != len(set(outputs)):
        raise refused("outputs", "names an output twice; ask for each once")
    for index, wanted in enumerate(message.outputs):
        if wanted.parameters:
            _refuse_parameters(f"outputs[{index}]", wanted.parameters)
    known = InferRequest(addressed.model_name, addressed.model_version, addressed.id, tensors, outputs)
    return _with_parameters(known, message.parameters) if message.parameters else known


def _refuse_crowds(message: Message) -> None:
    """More than any model has costs nobody more than this."""
    for field, most in (
        ("inputs", REQUEST_TENSORS),
        ("outputs", REQUEST_TENSORS),
        ("parameters", REQUEST_PARAMETERS),
    ):
        if len(getattr(message, field)) > most:
            raise refused(field, f"has more than {most} entries")


def _tensor(index: int, given: Message, raw: Sequence[Raw]) -> WireTensor:
    shape = tuple(given.shape)
    name, data_type = given.name, given.datatype
    if given.parameters:
        _refuse_parameters(f"inputs[{index}]", given.parameters)
    if not raw:
        field = f"inputs[{index}].contents"
        tensor = WireTensor(name, data_type, shape, raw_of_contents(given.contents, data_type, field))
        if not element_count(shape, f"inputs[{index}].shape") or given.HasField("contents"):
            check_raw(tensor, field, f"inputs[{index}].shape")
            return tensor
        raise refused(field, f"{name!r} has no elements; send them here or, better, in raw_input_contents")
    if given.HasField("contents"):
        raise refused(
            f"inputs[{index}].contents", "must not be given where raw_input_contents is; send each input one way"
        )
    tensor = WireTensor(name, data_type, shape, raw[index])
    check_raw(tensor, f"raw_input_contents[{index}]", f"inputs[{index}].shape")
    return tensor


def _with_parameters(request: InferRequest, parameters: Mapping[str, Any]) -> InferRequest:
    _refuse_parameters("parameters", parameters)
    priority = _number(parameters, "priority") or DEFAULT_PRIORITY
    if not 0 < priority <= PRIORITIES:
        raise refused("parameters.priority", f"is from 1, which goes first, to {PRIORITIES}")
    timeout_us = _number(parameters, "timeout")
    if timeout_us < 0:
        raise refused("parameters.timeout", "is a number of microseconds from arrival")
    final = parameters["triton_enable_empty_final_response"] if _FINAL in parameters else None
    return request._replace(
        priority=priority, timeout_us=timeout_us, mark_final=final is not None and bool(final.bool_param)
    )


_FINAL: Final = "triton_enable_empty_final_response"


def _refuse_parameters(field: str, parameters: Mapping[str, Any]) -> None:
    for name, why in _REFUSED.items():
        if name in parameters and _value(parameters[name]):
            raise refused(f"{field}.{name}", why)


def _number(parameters: Mapping[str, Any], name: str) -> int:
    if name not in parameters:
        return 0
    value = _value(parameters[name])
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise refused(f"parameters.{name}", "must be a whole number")
    return value


def _value(parameter: Message) -> bool | int | float | str | None:
    choice = parameter.WhichOneof("parameter_choice")
    value: bool | int | float | str | None = getattr(parameter, choice) if choice else None
    return value


def _without_raw(data: bytes) -> tuple[Raw, list[Raw] | None]:
    """The message without its raw contents, and these where they lie: they are large, and need not be copied.

    None where they are not encoded as every encoder does it: then the message is read as a whole.
    """
    view = memoryview(data)
    kept: list[memoryview] = []
    raw: list[Raw] = []
    wire = Wire(data, MESSAGE_FIELDS)
    last = 0
    try:
        for found in wire.fields(Span(0, len(data))):
            span = found.value
            if found.number == _RAW_INPUT and not isinstance(span, int):
                head = _RAW_TAG + varint(span.size)
                if data[span.start - len(head) : span.start] != head:
                    return data, None
                kept.append(view[last : span.start - len(head)])
                raw.append(view[span.start : span.end])
                last = span.end
    except MalformedError as error:
        raise InvalidRequestError(f"the message is no ModelInferRequest: {error}") from None
    kept.append(view[last:])
    return b"".join(kept), raw


def raw_at_end(data: bytes) -> int | None:
    """Where the raw contents begin, if a request has them once and ends with them; None for every other."""
    found: Span | None = None
    try:
        for each in Wire(data, MESSAGE_FIELDS).fields(Span(0, len(data))):
            if each.number == _RAW_INPUT and not isinstance(each.value, int):
                if found is not None:
                    return None
                found = each.value
    except MalformedError:
        return None
    return found.start if found is not None and found.end == len(data) else None


def write_request(request: InferRequest) -> Message:
    """The request as a message, all contents raw."""
    message = ModelInferRequest(model_name=request.model_name, model_version=request.model_version, id=request.id)
    for tensor in request.inputs:
        message.inputs.add(name=tensor.name, datatype=tensor.data_type, shape=tensor.shape)
        message.raw_input_contents.append(bytes(tensor.data))
    for name in request.outputs:
        message.outputs.add(name=name)
    if request.priority != DEFAULT_PRIORITY:
        message.parameters["priority"].uint64_param = request.priority
    if request.timeout_us:
        message.parameters["timeout"].int64_param = request.timeout_us
    return message

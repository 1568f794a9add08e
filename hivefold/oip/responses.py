"""ModelInfer responses: written with all that repeats kept ready, and read, for clients. Outputs are always raw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from hivefold.oip.limits import RESPONSE_HEADS
from hivefold.oip.schema import Message, ModelInferResponse
from hivefold.oip.tensors import Raw, WireTensor

_ID: Final = b"\x1a"
_RAW_OUTPUT: Final = b"\x32"
"""Tags of the fields id (3) and raw_output_contents (6), both with a length."""


class OutputTensor(NamedTuple):
    """One output of one request: its shape and its raw bytes. Name and type are its model's."""

    shape: tuple[int, ...]
    data: Raw


class ResponseWriter:
    """Writes the responses of one model version.

    All that comes before the id, and the outputs' descriptions, are the same for requests of the same shape.
    """

    def __init__(self, model_name: str, model_version: str) -> None:
        self._start = ModelInferResponse(model_name=model_name, model_version=model_version).SerializeToString()
        self._described: dict[tuple[object, ...], bytes] = {}

    def write(
        self, request_id: str, names: Sequence[tuple[str, str]], tensors: Sequence[OutputTensor], *, final: bool = False
    ) -> bytes:
        """The response's bytes; `names` says name and type of each of `tensors`."""
        pieces: list[Raw] = [self._start]
        if request_id:
            text = request_id.encode()
            pieces += (_ID, varint(len(text)), text)
        if final:
            message = ModelInferResponse()
            message.parameters["triton_final_response"].bool_param = True
            pieces.append(message.SerializeToString())
        pieces.append(self._outputs(names, tensors))
        for tensor in tensors:
            pieces += (_RAW_OUTPUT, varint(len(tensor.data)), tensor.data)
        return b"".join(pieces)

    def _outputs(self, names: Sequence[tuple[str, str]], tensors: Sequence[OutputTensor]) -> bytes:
        key = (*names, *[tensor.shape for tensor in tensors])
        known = self._described.get(key)
        if known is None:
            if len(self._described) >= RESPONSE_HEADS:
                self._described.clear()
            message = ModelInferResponse()
            for (name, data_type), tensor in zip(names, tensors, strict=True):
                message.outputs.add(name=name, datatype=data_type, shape=tensor.shape)
            known = self._described[key] = message.SerializeToString()
        return known


def read_response(message: Message) -> tuple[WireTensor, ...]:
    """The outputs of a response whose contents are raw, as hivefold's always are."""
    return tuple(
        WireTensor(output.name, output.datatype, tuple(output.shape), raw)
        for output, raw in zip(message.outputs, message.raw_output_contents, strict=True)
    )


def varint(number: int) -> bytes:
    """A number as protobuf encodes it, seven bits a byte."""
    if number < 0x80:
        return _SMALL[number]
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


_SMALL: Final = tuple(bytes((number,)) for number in range(0x80))

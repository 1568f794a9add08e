"""Tensors of the protocol: what their raw bytes must be, and typed contents turned into raw bytes.

Raw is row-major and little-endian without gaps. BOOL is one byte; an element of BYTES is its length in four bytes
and then itself; FP16 and BF16 exist only raw.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from hivefold.element_types import DESCRIPTIONS
from hivefold.element_types import ITEM_BYTES as ARRAY_ITEM_BYTES
from hivefold.errors import FieldViolation, InvalidRequestError
from hivefold.limits import TENSOR_RANK
from hivefold.oip.limits import BYTES_ELEMENTS, TENSOR_ELEMENTS, TYPED_ELEMENTS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Raw: TypeAlias = bytes | memoryview
ITEM_BYTES: Final = {**ARRAY_ITEM_BYTES, "BF16": 2}
"""Bytes of one element of each type whose elements all have the same size: every type but BYTES."""
DATA_TYPES: Final = (*ITEM_BYTES, "BYTES")

_CONTENTS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The one field of InferTensorContents that holds elements of a type."""
_CODES: Final = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP32": "f",
    "FP64": "d",
}
_LENGTH: Final = struct.Struct("<I")


class WireTensor(NamedTuple):
    """A tensor as it travels; its bytes are raw."""

    name: str
    data_type: str
    shape: tuple[int, ...]
    data: Raw


def refused(field: str, description: str) -> InvalidRequestError:
    """The error that names a field of the request and says what to do about it."""
    return InvalidRequestError(
        f"{field}: {description}", metadata={"field": field}, violations=[FieldViolation(field, description)]
    )


def element_count(shape: Sequence[int], field: str) -> int:
    """Elements of a tensor of this shape. Raises InvalidRequestError for a shape that no tensor has."""
    if len(shape) > TENSOR_RANK:
        raise refused(field, f"has {len(shape)} dimensions; at most {TENSOR_RANK} are taken")
    count = prod(shape)
    if count < 0 or min(shape, default=0) < 0:
        raise refused(field, f"{list(shape)} has a negative dimension; give the tensor's own size")
    if count > TENSOR_ELEMENTS:
        raise refused(field, f"{list(shape)} has more than {TENSOR_ELEMENTS} elements; send fewer rows at once")
    return count


def check_raw(tensor: WireTensor, field: str, shape_field: str) -> None:
    """Raises InvalidRequestError, naming `field`, unless the tensor's bytes are what its type and shape say."""
    count = element_count(tensor.shape, shape_field)
    item = ITEM_BYTES.get(tensor.data_type)
    if item is not None:
        if len(tensor.data) != count * item:
            raise refused(
                field,
                f"{tensor.name!r} of {tensor.data_type} {list(tensor.shape)} takes {count * item} bytes and has "
                f"{len(tensor.data)}; send its elements row-major and without gaps",
            )
        return
    if tensor.data_type != "BYTES":
        raise unknown_type(tensor.data_type, field)
    if count > BYTES_ELEMENTS:
        raise refused(shape_field, f"has {count} elements of BYTES; at most {BYTES_ELEMENTS} are taken at once")
    found = count_elements(tensor.data)
    if found != count:
        what = "bytes that are no elements" if found < 0 else f"{found}"
        raise refused(
            field,
            f"{tensor.name!r} of BYTES {list(tensor.shape)} takes {count} elements and has {what}; "
            "send each as its length in four bytes, little-endian, and then itself",
        )


def unknown_type(data_type: str, field: str) -> InvalidRequestError:
    """The error for an element type that the protocol does not have."""
    return refused(field, f"{data_type[:32]!r} is no element type; use one of {', '.join(DATA_TYPES)}")


def count_elements(data: Raw) -> int:
    """How many elements raw BYTES hold; -1 when the lengths do not add up."""
    position = count = 0
    end = len(data)
    while position < end and count <= BYTES_ELEMENTS:
        if end - position < 4:
            return -1
        position += 4 + _LENGTH.unpack_from(data, position)[0]
        count += 1
    return count if position == end else -1


def split_bytes(data: Raw) -> list[bytes]:
    """The elements of raw BYTES. `data` MUST have been checked."""
    elements: list[bytes] = []
    position = 0
    while position < len(data):
        (size,) = _LENGTH.unpack_from(data, position)
        elements.append(bytes(data[position + 4 : position + 4 + size]))
        position += 4 + size
    return elements


def join_bytes(elements: Iterable[bytes]) -> bytes:
    """Raw BYTES of these elements."""
    return b"".join([part for element in elements for part in (_LENGTH.pack(len(element)), element)])


def raw_of_contents(contents: Any, data_type: str, field: str) -> bytes:
    """Typed contents as raw bytes. Raises InvalidRequestError for another type's contents, or numbers out of range."""
    wanted = _CONTENTS.get(data_type)
    if wanted is None:
        if data_type not in ITEM_BYTES:
            raise unknown_type(data_type, field)
        raise refused(field, f"{data_type} has no typed contents; send it in raw_input_contents")
    for other, _ in contents.ListFields():
        if other.name != wanted:
            raise refused(f"{field}.{other.name}", f"does not hold {data_type}; send {wanted}, or raw_input_contents")
    values = getattr(contents, wanted)
    if len(values) > TYPED_ELEMENTS:
        raise refused(f"{field}.{wanted}", f"has more than {TYPED_ELEMENTS} elements; send raw_input_contents")
    if data_type == "BYTES":
        return join_bytes(values)
    try:
        return struct.pack(f"<{len(values)}{_CODES[data_type]}", *values)
    except struct.error as error:
        raise refused(f"{field}.{wanted}", f"holds a number that is no {data_type}: {error}") from None


def to_array(tensor: WireTensor) -> NDArray[Any]:
    """The tensor as an array, without a copy: BF16 as the upper halves of FP32, BYTES as objects (that is a copy)."""
    import numpy as np

    if tensor.data_type == "BYTES":
        array: NDArray[Any] = np.empty(prod(tensor.shape), dtype=object)
        array[:] = split_bytes(tensor.data)
        return array.reshape(tensor.shape)
    if tensor.data_type == "BF16":
        halves = np.frombuffer(tensor.data, "<u2").astype("<u4") << 16
        return halves.view("<f4").reshape(tensor.shape)
    return np.frombuffer(tensor.data, np.dtype(DESCRIPTIONS[tensor.data_type])).reshape(tensor.shape)


def from_array(name: str, array: NDArray[Any], data_type: str = "") -> WireTensor:
    """An array as a tensor; text and objects become BYTES, FP32 becomes BF16 (rounded) only where that is asked for.

    Raises InvalidRequestError for elements that the protocol cannot carry.
    """
    import numpy as np

    if data_type == "BF16":
        return WireTensor(name, "BF16", array.shape, _upper_halves(np.ascontiguousarray(array, "<f4")))
    if array.dtype.kind in "OSU":
        return WireTensor(name, "BYTES", array.shape, join_bytes(_as_bytes(element) for element in array.ravel()))
    plain = array.dtype.newbyteorder("<")
    known = _ARRAY_TYPES.get(plain.str[1:])
    if known is None:
        raise refused("inputs", f"{name!r} has elements of {array.dtype}; use one of {', '.join(DATA_TYPES)}")
    return WireTensor(name, known, array.shape, np.ascontiguousarray(array, plain).tobytes())


_ARRAY_TYPES: Final = {description[1:]: name for name, description in DESCRIPTIONS.items()}


def _as_bytes(element: object) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode()


def _upper_halves(array: NDArray[np.float32]) -> bytes:
    """FP32 rounded to BF16, to even; NaN stays NaN."""
    import numpy as np

    bits = array.view("<u4")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(array), (bits >> 16) | 0x40, rounded).astype("<u2").tobytes()

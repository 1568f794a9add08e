"""Safetensors: a JSON header that names tensors by byte ranges, then their bytes.

Format: the README of huggingface/safetensors: 8 bytes little-endian header size; ranges without holes or overlaps.
"""

from __future__ import annotations

from typing import Any, Final

from hivefold.models.passport.draft import Draft, Weight
from hivefold.models.passport.jsontext import parsed
from hivefold.models.passport.source import Source
from hivefold.models.wire import MalformedError

_BITS: Final = {
    "F64": ("FP64", 64), "F32": ("FP32", 32), "F16": ("FP16", 16), "BF16": ("BF16", 16), "F8_E5M2": ("FP8", 8),
    "F8_E4M3": ("FP8", 8), "F8_E8M0": ("FP8", 8), "F6_E2M3": ("FP6", 6), "F6_E3M2": ("FP6", 6), "F4": ("FP4", 4),
    "I64": ("INT64", 64), "I32": ("INT32", 32), "I16": ("INT16", 16), "I8": ("INT8", 8), "U64": ("UINT64", 64),
    "U32": ("UINT32", 32), "U16": ("UINT16", 16), "U8": ("UINT8", 8), "BOOL": ("BOOL", 8), "C64": ("COMPLEX64", 64),
}  # fmt: skip


def looks(source: Source) -> bool:
    """Whether the bytes begin as safetensors do."""
    head = source.head(9)
    return len(head) == 9 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= source.size - 8


def inspect(source: Source, draft: Draft) -> None:
    """Reads the header. Raises MalformedError."""
    draft.format, draft.framework = "safetensors", draft.framework or "safetensors"
    size = source.integer(0, 8)
    header = parsed(source.part("the header", 8, size))
    metadata = header.pop("__metadata__", None)
    if isinstance(metadata, dict) and isinstance(made := metadata.get("format"), str):
        draft.framework = {"pt": "pytorch", "tf": "tensorflow", "flax": "flax", "mlx": "mlx"}.get(made, draft.framework)
    ranges = [_tensor(draft, name, given) for name, given in header.items()]
    end = 0
    for begin, finish, name in sorted(ranges):
        if begin != end:
            raise MalformedError(f"the tensor {name!r} does not begin where the one before it ends")
        end = finish
    if 8 + size + end != source.size:
        raise MalformedError(f"its tensors end at byte {8 + size + end}, the file at {source.size}")


def _tensor(draft: Draft, name: str, given: Any) -> tuple[int, int, str]:
    draft.budget.spend()
    match given:
        case {"dtype": str(kind), "shape": [*shape], "data_offsets": [int(begin), int(end)]} if _sizes(shape):
            pass
        case _:
            raise MalformedError(f"the tensor {name!r} is not described as one")
    if kind not in _BITS:
        raise MalformedError(f"the tensor {name!r} has the unknown type {kind!r}")
    data_type, bits = _BITS[kind]
    weight = Weight(name, data_type, tuple(shape), end - begin)
    if not 0 <= begin <= end or (weight.elements * bits + 7) // 8 != end - begin:
        raise MalformedError(f"the tensor {name!r} holds other bytes than its shape needs")
    draft.weights.append(weight)
    return begin, end, name


def _sizes(shape: list[Any]) -> bool:
    return all(type(size) is int and 0 <= size < 1 << 48 for size in shape) and len(shape) <= 32

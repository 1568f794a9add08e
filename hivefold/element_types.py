"""The types that a tensor's elements may have: hivefold's names, NumPy's descriptions, sizes. Pure, without NumPy."""

from __future__ import annotations

from typing import Final

DESCRIPTIONS: Final = {
    "BOOL": "|b1",
    "UINT8": "|u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "|i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
"""NumPy's description of each type that an array can hold, little-endian."""
ITEM_BYTES: Final = {name: int(description[2:]) for name, description in DESCRIPTIONS.items()}
"""Bytes of one element of each of them."""

"""Element types: hivefold's names, their sizes, and how NumPy files spell them. Without NumPy."""

from __future__ import annotations

import re
from typing import Final

from hivefold.element_types import DESCRIPTIONS
from hivefold.errors import DataRefusedError, Reason

_NAMES: Final = {description[1:]: name for name, description in DESCRIPTIONS.items()}
_DESCRIPTION: Final = re.compile(r"([<>|=])([a-zA-Z])(\d*)")


def description(data_type: str) -> str:
    """NumPy's description of a little-endian type: "FP32" gives "<f4".

    Raises DataRefusedError (DATA_TYPE_MISMATCH) for types that NumPy files cannot hold, as BF16 and BYTES.
    """
    found = DESCRIPTIONS.get(data_type)
    if found is None:
        raise DataRefusedError(
            f"NumPy and CSV files cannot hold elements of type {data_type}. Use one of {', '.join(DESCRIPTIONS)}.",
            reason=Reason.DATA_TYPE_MISMATCH,
            metadata={"data_type": data_type},
        )
    return found


def item_bytes(data_type: str) -> int:
    """Bytes of one element. Raises as `description`."""
    return int(description(data_type)[2:])


def parse_description(text: str) -> tuple[str, bool] | None:
    """Name of a described type and whether its bytes are big-endian; None where hivefold has no such type."""
    match = _DESCRIPTION.fullmatch(text)
    if match is None:
        return None
    name = _NAMES.get(match[2] + match[3])
    return None if name is None else (name, match[1] == ">")

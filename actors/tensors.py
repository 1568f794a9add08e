"""Rows as bytes, and as arrays that fit a model's input."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hivefold.element_types import DESCRIPTIONS, ITEM_BYTES
from hivefold.errors import DataRefusedError, Reason
from hivefold.models import TensorFacts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"

_ELEMENT_TYPES: Final = {description[1:]: name for name, description in DESCRIPTIONS.items()}


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows lie in memory: element type as "FP32", shape of one row."""

    data_type: str
    row_shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Size of one row. Raises DataRefusedError for a type that no array can hold."""
        item = ITEM_BYTES.get(self.data_type)
        if item is None:
            raise DataRefusedError(
                f"rows of {self.data_type} cannot be given to a model; use one of {', '.join(ITEM_BYTES)}",
                reason=Reason.DATA_TYPE_MISMATCH,
                metadata={"data_type": self.data_type},
            )
        return item * prod(self.row_shape)

    def require_fits(self, target: TensorFacts) -> None:
        """Raises DataRefusedError unless such rows can be given to the model's input `target`."""
        if self.data_type != target.data_type:
            raise DataRefusedError(
                f"the data set holds {self.data_type}, the model's input {target.name!r} takes {target.data_type}; "
                "convert the data set",
                reason=Reason.DATA_TYPE_MISMATCH,
                metadata={"data_type": self.data_type, "model_data_type": target.data_type},
            )
        wanted = target.shape[1:]
        fits = len(wanted) == len(self.row_shape) and all(
            size in {-1, has} for size, has in zip(wanted, self.row_shape, strict=True)
        )
        if not fits:
            raise DataRefusedError(
                f"a row of the data set has shape {list(self.row_shape)}, the model's input {target.name!r} takes "
                f"{list(wanted)} (-1: any); reshape the data set",
                reason=Reason.SHAPE_MISMATCH,
                metadata={"row_shape": str(list(self.row_shape)), "model_row_shape": str(list(wanted))},
            )


def as_rows(data: bytes | bytearray | memoryview, layout: Layout, row_count: int) -> Array:
    """The bytes as an array of `row_count` rows, without a copy if they are aligned.

    Raises DataRefusedError when they do not match.
    """
    import numpy as np

    wanted = layout.row_bytes * row_count
    if len(data) != wanted or not row_count:
        raise DataRefusedError(
            f"{row_count} rows need {wanted} bytes and {len(data)} came; the data set does not match its description",
            reason=Reason.DATA_INVALID,
            metadata={"expected_bytes": str(wanted), "bytes": str(len(data))},
        )
    rows = np.frombuffer(data, dtype=np.dtype(DESCRIPTIONS[layout.data_type])).reshape(row_count, *layout.row_shape)
    return rows if rows.flags.aligned else rows.copy()


def first_nan_row(rows: Array) -> int | None:
    """Index of the first row that holds NaN, if any."""
    import numpy as np

    if rows.dtype.kind != "f" or not rows.size:
        return None
    if not np.isnan(rows.min()):  # NaN is contagious: one pass and no mask in the good case
        return None
    return int(np.isnan(rows.reshape(len(rows), -1)).any(axis=1).argmax())


def element_type(name: str, dtype: np.dtype[Any]) -> str:
    """The element type of a model's output. Raises DataRefusedError for one that is no number."""
    known = _ELEMENT_TYPES.get(dtype.str.lstrip("<>|="))
    if known is None:
        raise DataRefusedError(
            f"output {name!r} holds {dtype}, which is no number; ask only for numeric outputs, or export the model "
            "without text labels",
            reason=Reason.MODEL_INVALID,
        )
    return known


def row_major(array: Array) -> memoryview:
    """The array's bytes, row-major and little-endian."""
    import numpy as np

    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.ascontiguousarray(array).data

"""A NumPy array in memory as a data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hivefold.datasets.converting import check_conversion, convert
from hivefold.datasets.data_types import item_bytes, parse_description
from hivefold.datasets.source import DataSetSource
from hivefold.errors import DataRefusedError, Reason
from hivefold.limits import STREAM_PIECE_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NAME: Final = "array"


@dataclass(frozen=True, slots=True)
class ArrayRows:
    """The elements of an array, in order, as they are or as another type."""

    elements: NDArray[np.generic]
    stored_type: str
    data_type: str

    def converted(self, data_type: str, *, lossy: bool) -> ArrayRows:
        """The same elements as another type. Raises DataRefusedError where that is not allowed."""
        check_conversion("the array", self.stored_type, data_type, lossy=lossy)
        return replace(self, data_type=data_type)

    def blocks(self) -> Iterator[bytes]:
        """The elements in order. Raises DataRefusedError for a value outside the range of the wanted type."""
        step = max(STREAM_PIECE_BYTES // item_bytes(self.data_type), 1)
        for start in range(0, self.elements.size, step):
            yield convert("the array", self.elements[start : start + step], self.stored_type, self.data_type)


def open_array(rows: NDArray[np.generic]) -> DataSetSource:
    """An array whose first axis counts the rows. Raises DataRefusedError."""
    import numpy as np

    parsed = parse_description(rows.dtype.str)
    if parsed is None or not rows.ndim or not rows.size:
        raise DataRefusedError(
            f"an array of {rows.dtype} and shape {rows.shape} is no data set: "
            "give numbers, the first axis counting the rows",
            reason=Reason.DATA_INVALID,
        )
    elements = np.ascontiguousarray(rows).reshape(-1)
    return DataSetSource(
        path=Path(_NAME),
        data_type=parsed[0],
        row_shape=rows.shape[1:],
        row_count=rows.shape[0],
        data_offset_bytes=None,
        rows=ArrayRows(elements, parsed[0], parsed[0]),
    )

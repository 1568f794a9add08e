"""From one element type to another: what is allowed, and the doing. NumPy is imported when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hivefold.datasets.data_types import description
from hivefold.errors import DataRefusedError, Reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def check_conversion(name: str, stored_type: str, data_type: str, *, lossy: bool) -> None:
    """Raises DataRefusedError where values could change, unless `lossy` allows rounding; `name` is for the message."""
    import numpy as np

    stored, wanted = np.dtype(description(stored_type)), np.dtype(description(data_type))
    if np.can_cast(stored, wanted, "safe") or (lossy and np.can_cast(stored, wanted, "same_kind")):
        return
    possible = np.can_cast(stored, wanted, "same_kind")
    way = "allow rounding (--cast)" if possible else "choose what the numbers should become"
    raise DataRefusedError(
        f"{name} holds {stored_type}, and {data_type}, which is needed, cannot hold all its values. "
        f"Either {way}, or save the array with .astype({wanted.name!r}).",
        reason=Reason.DATA_TYPE_MISMATCH,
        metadata={"data_type": stored_type, "needed": data_type},
    )


def convert(name: str, stored: NDArray[np.generic], stored_type: str, data_type: str) -> bytes:
    """The elements as little-endian bytes of `data_type`.

    Raises DataRefusedError for a value that the type has no room for: never infinite, no other integer.
    """
    import numpy as np

    wanted = np.dtype(description(data_type))
    try:
        with np.errstate(over="raise"):
            result = stored.astype(wanted, casting="same_kind", copy=False)
    except FloatingPointError:
        raise _out_of_range(name, stored_type, data_type) from None
    if wanted.kind in "iu" and not np.array_equal(result, stored):
        raise _out_of_range(name, stored_type, data_type)
    return result.tobytes()


def _out_of_range(name: str, stored_type: str, data_type: str) -> DataRefusedError:
    return DataRefusedError(
        f"{name} holds a value outside the range of {data_type}. Scale or clip the values first.",
        reason=Reason.DATA_TYPE_MISMATCH,
        metadata={"data_type": stored_type, "needed": data_type},
    )

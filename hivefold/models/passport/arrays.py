"""NumPy arrays inside pickles, as symbols: element type and shape."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import Final

from hivefold.models.passport.values import Call, Listing, Pairs, Value, called, integers, lookup

_TYPE: Final = re.compile(r"[<>|=]?([a-zA-Z?])(\d{0,9})")
_NAMES: Final = {"f": "FP", "i": "INT", "u": "UINT", "c": "COMPLEX"}
_FIELDS: Final = 64
_FLEXIBLE: Final = frozenset("VSUa")
"""Types whose elements are as large as their state says."""
_RECONSTRUCT: Final = frozenset({"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"})
_FROM_BUFFER: Final = frozenset({"numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"})
ARRAY_WRAPPER: Final = "joblib.numpy_pickle.NumpyArrayWrapper"


@dataclass(frozen=True, slots=True)
class ArrayFacts:
    """An array's element type as "FP64" ("" where it has no name) and its shape."""

    data_type: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


def bits_of(kind: Value) -> int | None:
    """Bits of one element of a `numpy.dtype`; 0 for objects, None where that cannot be told.

    What BUILD gave to the type must not contradict its name: a reader that skips must not be led astray.
    """
    found = _described(kind)
    if found is None or not isinstance(kind, Call):
        return None
    letter, size = found
    given = kind.state if isinstance(kind.state, tuple) else (kind.state,)
    itemsize, flags = (given[5], given[7]) if len(given) > 7 else (-1, 0)
    if not isinstance(itemsize, int) or not isinstance(flags, int) or (given != (None,) and len(given) != 8):
        return None
    if letter == "O":
        return 0
    if flags & 1 or (letter not in _FLEXIBLE and itemsize > 0):
        return None
    if letter in _FLEXIBLE and itemsize > 0:
        return 8 * itemsize
    if letter in {"?", "b", "B"} and not size:
        return 8
    return 8 * size * (4 if letter == "U" else 1)


def array_of(value: Value) -> ArrayFacts | None:
    """An array's facts; None for anything else."""
    if not isinstance(value, Call):
        return None
    if called(value) == ARRAY_WRAPPER and isinstance(value.state, Pairs) and len(value.state.pairs) <= _FIELDS:
        shape, kind = integers(lookup(value.state, "shape")), lookup(value.state, "dtype")
    elif called(value) in _RECONSTRUCT and isinstance(value.state, tuple) and len(value.state) >= 5:
        shape, kind = integers(value.state[1]), value.state[2]
    elif called(value) in _FROM_BUFFER and isinstance(value.arguments, tuple) and len(value.arguments) >= 3:
        shape, kind = integers(value.arguments[2]), value.arguments[1]
    elif called(value).endswith("_core.multiarray.scalar") or called(value) == "numpy.core.multiarray.scalar":
        shape, kind = (), value.arguments[0] if isinstance(value.arguments, tuple) and value.arguments else None
    else:
        return None
    return None if shape is None else ArrayFacts(_name(kind), shape)


def objects_of(value: Value) -> list[Value]:
    """The items of a list, a tuple or an array of objects."""
    match value:
        case Listing():
            return value.items
        case tuple():
            return list(value)
        case Call() if called(value) in _RECONSTRUCT and isinstance(value.state, tuple) and len(value.state) >= 5:
            return objects_of(value.state[4]) if isinstance(value.state[4], Listing) else []
        case _:
            return []


def _described(kind: Value) -> tuple[str, int] | None:
    if not (isinstance(kind, Call) and isinstance(kind.arguments, tuple) and kind.arguments):
        return None
    first = kind.arguments[0]
    found = _TYPE.fullmatch(first) if isinstance(first, str) else None
    return (found[1], int(found[2] or 0)) if found else None


def _name(kind: Value) -> str:
    found = _described(kind)
    if found is None:
        return ""
    letter, size = found
    if letter in {"?", "b"}:
        return "BOOL"
    return f"{_NAMES[letter]}{8 * size}" if letter in _NAMES else ""

"""Output files as streams: .npy, .npz and .csv, piece by piece, their size known beforehand where it can be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final, Protocol

from hivefold.datasets.archive import StoredArchive
from hivefold.datasets.data_types import description, item_bytes
from hivefold.datasets.npy import header_bytes
from hivefold.errors import ConflictError

_CSV_BLOCK_VALUES: Final = 64 * 1024
"""Numbers that are Python objects at once."""
_CSV_FORMATS: Final = {"f2": "%.5g", "f4": "%.9g", "f8": "%r"}
"""Enough digits to read the same number back."""


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """A tensor of the output: its rows are the first dimension of `shape`."""

    name: str
    data_type: str
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row. Raises DataRefusedError for types that these files cannot hold."""
        return prod(self.shape[1:]) * item_bytes(self.data_type)

    @property
    def size_bytes(self) -> int:
        """Bytes of all rows."""
        return self.shape[0] * self.row_bytes


class TensorWriter(Protocol):
    """Writes tensor after tensor. Call `begin`, `add` for its bytes in order, `end` for each, then `close`.

    Not safe for several threads at once; `add` may take long and belongs into a thread.
    """

    @property
    def total_bytes(self) -> int:
        """Size of the whole file."""
        ...

    def begin(self, index: int) -> bytes:
        """What comes before the bytes of a tensor."""
        ...

    def add(self, data: bytes) -> None:
        """Notes the next bytes of the tensor, which go into the file as they are."""
        ...

    def end(self) -> bytes:
        """What comes after the bytes of a tensor."""
        ...

    def close(self) -> bytes:
        """The end of the file."""
        ...


class NpyWriter:
    """One tensor as a .npy file. Raises ConflictError where there is not exactly one."""

    def __init__(self, tensors: Sequence[TensorLayout]) -> None:
        if len(tensors) != 1:
            names = ", ".join(tensor.name for tensor in tensors)
            raise ConflictError(
                f"A .npy file holds one tensor, and the output has {len(tensors)} ({names}). "
                "Take .npz, or submit the job with one output."
            )
        self._header = header_bytes(tensors[0].data_type, tensors[0].shape)
        self.total_bytes = len(self._header) + tensors[0].size_bytes

    def begin(self, index: int) -> bytes:
        """The header."""
        del index
        return self._header

    def add(self, data: bytes) -> None:
        """The bytes go into the file as they are."""

    def end(self) -> bytes:
        """Nothing follows."""
        return b""

    def close(self) -> bytes:
        """Nothing follows."""
        return b""


class NpzWriter:
    """Tensors as members of an uncompressed .npz file."""

    def __init__(self, tensors: Sequence[TensorLayout]) -> None:
        self._headers = [header_bytes(tensor.data_type, tensor.shape) for tensor in tensors]
        sizes = [len(header) + tensor.size_bytes for header, tensor in zip(self._headers, tensors, strict=True)]
        self._archive = StoredArchive(
            [(f"{tensor.name}.npy", size) for tensor, size in zip(tensors, sizes, strict=True)]
        )
        self.total_bytes = self._archive.total_bytes

    def begin(self, index: int) -> bytes:
        """The member's headers: the archive's, then the array's."""
        start = self._archive.begin(index)
        self._archive.add(self._headers[index])
        return start + self._headers[index]

    def add(self, data: bytes) -> None:
        """Carries the member's checksum on."""
        self._archive.add(data)

    def end(self) -> bytes:
        """The member's checksum."""
        return self._archive.end()

    def close(self) -> bytes:
        """The archive's directory."""
        return self._archive.close()


class CsvWriter:
    """Tensors side by side as lines of text, one line a row; columns are named after their tensors."""

    def __init__(self, tensors: Sequence[TensorLayout]) -> None:
        self._tensors = tuple(tensors)
        self._descriptions = [description(tensor.data_type) for tensor in tensors]
        self._widths = [prod(tensor.shape[1:]) for tensor in tensors]
        formats = [_CSV_FORMATS.get(text[1:], "%d") for text in self._descriptions]
        columns = [form for form, width in zip(formats, self._widths, strict=True) for _ in range(width)]
        self._line = ",".join(columns) + "\n"
        self._rows_at_once = max(_CSV_BLOCK_VALUES // max(len(columns), 1), 1)

    def header(self) -> bytes:
        """The line of column names: a tensor's own where it has one column, else with the column's index."""
        names: list[str] = []
        for tensor, width in zip(self._tensors, self._widths, strict=True):
            names += [tensor.name] if not tensor.shape[1:] else [f"{tensor.name}_{index}" for index in range(width)]
        return (",".join(map(_quoted, names)) + "\n").encode()

    def lines(self, row_count: int, parts: Sequence[bytes]) -> Iterator[bytes]:
        """The lines of some rows; `parts` holds each tensor's bytes for them. Takes long: belongs into a thread."""
        import numpy as np

        arrays = [
            np.frombuffer(part, text).reshape(row_count, width)
            for part, text, width in zip(parts, self._descriptions, self._widths, strict=True)
        ]
        for first in range(0, row_count, self._rows_at_once):
            blocks = [array[first : first + self._rows_at_once].tolist() for array in arrays]
            values = [value for rows in zip(*blocks, strict=True) for row in rows for value in row]
            yield (self._line * len(blocks[0]) % tuple(values)).encode()


def _quoted(name: str) -> str:
    if any(mark in name for mark in ',"\r\n'):
        return '"' + name.replace('"', '""') + '"'
    return name

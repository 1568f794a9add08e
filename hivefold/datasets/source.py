"""A data set as the rest of hivefold sees it: rows of equal shape and type, read as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Protocol

from hivefold.datasets.data_types import item_bytes
from hivefold.errors import DataRefusedError
from hivefold.limits import STREAM_PIECE_BYTES


class Rows(Protocol):
    """Where the rows of a file come from."""

    def converted(self, data_type: str, *, lossy: bool) -> Rows:
        """The same rows as another type. Raises DataRefusedError where values could change and `lossy` is unset."""
        ...

    def blocks(self) -> Iterator[bytes]:
        """All rows in order, row-major and little-endian, in blocks of any size. Raises DataRefusedError."""
        ...


@dataclass(frozen=True, slots=True)
class DataSetSource:
    """Rows in a file.

    `data_offset_bytes` is where row 0 starts in the file; None where the rows do not lie in it as
    they are (CSV, compressed, big-endian or converted): such files can be uploaded but not referenced.
    """

    path: Path
    data_type: str
    row_shape: tuple[int, ...]
    row_count: int
    data_offset_bytes: int | None
    rows: Rows

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return prod(self.row_shape) * item_bytes(self.data_type)

    @property
    def size_bytes(self) -> int:
        """Bytes of all rows: what `pieces` yields in all."""
        return self.row_bytes * self.row_count

    def as_type(self, data_type: str, *, lossy: bool = False) -> DataSetSource:
        """The same rows as another element type, e.g. "FP32".

        Raises DataRefusedError (DATA_TYPE_MISMATCH) where values could change, unless `lossy` allows
        rounding; numbers never become integers of another value, nor infinite.
        """
        if data_type == self.data_type:
            return self
        rows = self.rows.converted(data_type, lossy=lossy)
        return replace(self, data_type=data_type, rows=rows, data_offset_bytes=None)

    def reference_offset_bytes(self) -> int:
        """Where row 0 starts in the file, for nodes that read it themselves. Raises DataRefusedError."""
        if self.data_offset_bytes is None:
            raise DataRefusedError(
                f"{self.path.name} cannot be read by nodes as it is. Save it as an uncompressed, little-endian "
                "array of the model's type with numpy.save, or let it be uploaded: without by_reference.",
                metadata={"path": str(self.path)},
            )
        return self.data_offset_bytes

    def pieces(self, piece_bytes: int = STREAM_PIECE_BYTES) -> Iterator[bytes]:
        """All rows in order, row-major and little-endian, in pieces of `piece_bytes` and a last shorter one.

        Memory stays bounded by a few pieces. Raises DataRefusedError when the file turns out to be
        damaged or changed meanwhile.
        """
        waiting = bytearray()
        left = self.size_bytes
        for block in self.rows.blocks():
            left -= len(block)
            if not waiting and len(block) == piece_bytes:
                yield block
                continue
            waiting += block
            while len(waiting) >= piece_bytes:
                yield bytes(waiting[:piece_bytes])
                del waiting[:piece_bytes]
        if waiting:
            yield bytes(waiting)
        if left:
            raise DataRefusedError(
                f"{self.path.name} changed while it was read. Try again once nothing writes to it.",
                metadata={"path": str(self.path)},
            )

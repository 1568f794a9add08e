"""Rows that lie in a file or an archive member as plain bytes."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final, Protocol

from hivefold.datasets.converting import check_conversion, convert
from hivefold.datasets.data_types import description, item_bytes
from hivefold.errors import DataRefusedError
from hivefold.limits import STREAM_PIECE_BYTES

ARCHIVE_ERRORS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)
"""What zipfile raises for archives that are damaged or made to mislead."""


class Opening(Protocol):
    """Opens the bytes of an array, its header included."""

    def __call__(self) -> AbstractContextManager[IO[bytes]]:
        """A stream at the start of the array's file. Raises OSError, zipfile.BadZipFile."""
        ...


@dataclass(frozen=True, slots=True)
class BinaryRows:
    """The elements of one array, as stored, as little-endian, or as another type."""

    path: Path
    opening: Opening
    offset_bytes: int
    size_bytes: int
    stored_type: str
    big_endian: bool
    data_type: str

    def converted(self, data_type: str, *, lossy: bool) -> BinaryRows:
        """The same elements as another type. Raises DataRefusedError where that is not allowed."""
        check_conversion(self.path.name, self.stored_type, data_type, lossy=lossy)
        return replace(self, data_type=data_type)

    def blocks(self) -> Iterator[bytes]:
        """The elements in order. Raises DataRefusedError when the file cannot be read to the end."""
        plain = self.data_type == self.stored_type and not self.big_endian
        left = self.size_bytes
        # Blocks of the wanted type get the size of a piece.
        step = max(STREAM_PIECE_BYTES // item_bytes(self.data_type), 1) * item_bytes(self.stored_type)
        try:
            with self.opening() as file:
                file.seek(self.offset_bytes)
                while left:
                    block = file.read(min(step, left))
                    if not block:
                        return
                    block += self._rest_of_element(file, len(block))
                    left -= len(block)
                    yield block if plain else self._convert(block)
        except (OSError, *ARCHIVE_ERRORS) as error:
            raise DataRefusedError(
                f"{self.path.name} cannot be read to its end: {error}. Check the file, or save it again.",
                metadata={"path": str(self.path)},
            ) from error

    def _rest_of_element(self, file: IO[bytes], size: int) -> bytes:
        """A decompressor may stop inside an element."""
        rest = b""
        while missing := -(size + len(rest)) % item_bytes(self.stored_type):
            more = file.read(missing)
            if not more:
                raise EOFError("it ends inside an element")
            rest += more
        return rest

    def _convert(self, block: bytes) -> bytes:
        import numpy as np

        stored = np.frombuffer(block, description(self.stored_type).replace("<", ">" if self.big_endian else "<"))
        return convert(self.path.name, stored, self.stored_type, self.data_type)

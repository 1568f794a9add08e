"""Headers of .npy files: read without NumPy and without trust, and written."""

from __future__ import annotations

import ast
import struct
from dataclasses import dataclass
from math import prod
from typing import IO, Final

from hivefold.datasets.data_types import description, item_bytes, parse_description
from hivefold.errors import DataRefusedError, Reason
from hivefold.limits import BLOB_BYTES, NPY_HEADER_BYTES, ROW_BYTES, TENSOR_RANK

MAGIC: Final = b"\x93NUMPY"
_ALIGNMENT: Final = 64


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """What a .npy header says: `offset_bytes` is where the elements start."""

    data_type: str
    big_endian: bool
    shape: tuple[int, ...]
    offset_bytes: int

    @property
    def size_bytes(self) -> int:
        """Bytes of all elements."""
        return prod(self.shape) * item_bytes(self.data_type)


def read_header(file: IO[bytes], name: str) -> ArrayHeader:
    """Reads the header at the start of `file`; `name` is for messages.

    Raises DataRefusedError for what is no array of rows: with the fix in the message.
    """
    start = file.read(8)
    if start[:6] != MAGIC or len(start) < 8:
        raise refused(name, "it is not a NumPy array file: write it with numpy.save")
    size_format = "<H" if start[6] == 1 else "<I"
    if start[6] not in {1, 2, 3}:
        raise refused(name, f"version {start[6]} of the .npy format is not known: write it with numpy.save")
    length_bytes = file.read(struct.calcsize(size_format))
    if len(length_bytes) < struct.calcsize(size_format):
        raise refused(name, "it ends inside its header: copy it again")
    length = struct.unpack(size_format, length_bytes)[0]
    if length > NPY_HEADER_BYTES:
        raise refused(name, f"its header claims {length} bytes: it is damaged, or holds records instead of numbers")
    text = file.read(length)
    if len(text) < length:
        raise refused(name, "it ends inside its header: copy it again")
    return _parse(text, name, 8 + len(length_bytes) + length)


def _parse(text: bytes, name: str, offset_bytes: int) -> ArrayHeader:
    try:
        header = ast.literal_eval(text.decode("latin-1").strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        header = None
    match header:
        case {"descr": str(descr), "fortran_order": bool(fortran_order), "shape": tuple(shape)}:
            pass
        case {"descr": list(), **_others}:
            raise refused(name, "it holds records with named fields: save one plain array of numbers")
        case _:
            raise refused(name, "its header is damaged: copy it again, or write it with numpy.save")
    if "O" in descr:
        raise refused(
            name, "it holds pickled Python objects, which are never loaded: convert it with .astype('float32')"
        )
    parsed = parse_description(descr)
    if parsed is None:
        raise refused(name, f"elements of type {descr} are not supported: convert it, e.g. with .astype('float32')")
    if not all(type(size) is int and 0 <= size < BLOB_BYTES for size in shape) or len(shape) > TENSOR_RANK + 1:
        raise refused(
            name, f"its shape {str(shape)[:100]} is not one of an array of up to {TENSOR_RANK + 1} dimensions"
        )
    if fortran_order and len(shape) > 1:
        raise refused(name, "it is stored by columns: save numpy.ascontiguousarray(array) instead")
    header = ArrayHeader(parsed[0], parsed[1], shape, offset_bytes)
    _check_rows(header, name)
    return header


def _check_rows(header: ArrayHeader, name: str) -> None:
    if not header.shape:
        raise refused(name, "it holds a single number: save an array with one row for each input")
    if not prod(header.shape):
        raise refused(name, f"it is empty (shape {header.shape}): give at least one row")
    row_bytes = header.size_bytes // header.shape[0]
    if row_bytes > ROW_BYTES:
        raise refused(
            name,
            f"one row has {row_bytes} bytes, and at most {ROW_BYTES} are allowed: is the first dimension the rows?",
            Reason.LIMIT_EXCEEDED,
        )
    if header.size_bytes > BLOB_BYTES:
        raise refused(name, f"it has more than {BLOB_BYTES} bytes: split it", Reason.LIMIT_EXCEEDED)


def check_size(header: ArrayHeader, file_bytes: int, name: str) -> None:
    """The file is as long as its header says. Raises DataRefusedError."""
    expected = header.offset_bytes + header.size_bytes
    if file_bytes < expected:
        raise refused(name, f"it is truncated: {file_bytes} of {expected} bytes are there. Copy it again")
    if file_bytes > expected:
        raise refused(name, f"{file_bytes - expected} bytes follow its array: save one array a file")


def header_bytes(data_type: str, shape: tuple[int, ...]) -> bytes:
    """The header of a .npy file in format 1.0, as numpy.save writes it."""
    text = f"{{'descr': {description(data_type)!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    padding = -(len(MAGIC) + 4 + len(text) + 1) % _ALIGNMENT
    content = text.encode("ascii") + b" " * padding + b"\n"
    return MAGIC + b"\x01\x00" + struct.pack("<H", len(content)) + content


def refused(name: str, why: str, reason: Reason = Reason.DATA_INVALID) -> DataRefusedError:
    """The refusal of a data set: what is wrong and what to do."""
    return DataRefusedError(f"{name} cannot be used as a data set: {why}.", reason=reason, metadata={"path": name})

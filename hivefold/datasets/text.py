"""CSV files as rows of numbers: one line a row, a header line where the first line holds names."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hivefold.datasets.data_types import description
from hivefold.datasets.npy import refused
from hivefold.datasets.source import DataSetSource
from hivefold.errors import DataRefusedError, Reason
from hivefold.limits import CSV_BLOCK_BYTES, CSV_LINE_BYTES, ROW_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_TYPE: Final = "FP32"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_EXACT_INTEGERS: Final = 1 << 53
"""Text is read as FP64 on its way to an integer: beyond this it would be rounded."""


@dataclass(frozen=True, slots=True)
class CsvRows:
    """The lines of a CSV file as numbers of one type."""

    path: Path
    delimiter: str
    header_lines: int
    column_count: int
    data_type: str

    def converted(self, data_type: str, *, lossy: bool) -> CsvRows:
        """The same lines, read as another type: text has none of its own. Raises DataRefusedError for BOOL."""
        del lossy
        if data_type == "BOOL":
            raise refused(
                self.path.name, "CSV has no booleans: save a .npy of type bool instead", Reason.DATA_TYPE_MISMATCH
            )
        description(data_type)
        return replace(self, data_type=data_type)

    def blocks(self) -> Iterator[bytes]:
        """All rows. Raises DataRefusedError that names the line."""
        for first_line, lines in _line_blocks(self.path):
            skipped = max(self.header_lines - first_line + 1, 0)
            if lines[skipped:]:
                yield self._parse(first_line + skipped, lines[skipped:]).tobytes()

    def _parse(self, first_line: int, lines: list[bytes]) -> NDArray[np.generic]:
        import numpy as np

        wanted = np.dtype(description(self.data_type))
        try:
            numbers = np.loadtxt(
                lines,
                dtype=wanted if wanted.kind == "f" else np.float64,
                delimiter=self.delimiter,
                comments=None,
                quotechar='"',
                ndmin=2,
            )
        except ValueError:
            raise self._bad_line(first_line, lines) from None
        if numbers.shape != (len(lines), self.column_count):
            raise self._bad_line(first_line, lines)
        return numbers if wanted.kind == "f" else self._integers(numbers, wanted, first_line)

    def _integers(self, numbers: NDArray[np.float64], wanted: np.dtype[np.generic], line: int) -> NDArray[np.generic]:
        import numpy as np

        limits = np.iinfo(wanted)  # type: ignore[type-var]  # only integer kinds come here
        low, high = max(limits.min, -_EXACT_INTEGERS), min(limits.max, _EXACT_INTEGERS)
        good = (numbers >= low) & (numbers <= high) & (np.rint(numbers) == numbers)
        if not good.all():
            row = int(np.argmin(good.all(axis=1)))
            raise refused(
                self.path.name,
                f"line {line + row} holds a number that {self.data_type} cannot hold exactly: "
                "change it, or save a .npy of that type",
                Reason.DATA_TYPE_MISMATCH,
            )
        return numbers.astype(wanted)

    def _bad_line(self, first_line: int, lines: list[bytes]) -> DataRefusedError:
        """Names the first line of a block that is not as the others."""
        for number, line in enumerate(lines, first_line):
            cells = _cells(line, self.delimiter)
            if len(cells) != self.column_count:
                return refused(
                    self.path.name,
                    f"line {number} has {len(cells)} columns, the first has {self.column_count}: complete it",
                )
            for column, cell in enumerate(cells, 1):
                if not _is_number(cell):
                    shown = (
                        f"{cell[:40]!r} is not a number" if cell.strip() else "is empty (write nan if that is meant)"
                    )
                    return refused(self.path.name, f"line {number}, column {column}: {shown}")
        return refused(self.path.name, f"lines {first_line} to {first_line + len(lines) - 1} are not plain numbers")


def open_csv(path: Path) -> DataSetSource:
    """Opens a CSV file as FP32 rows; reads it once to count them. Raises DataRefusedError, OSError."""
    blocks = _line_blocks(path)
    first = next(blocks, None)
    if first is None:
        raise refused(path.name, "it is empty: give at least one row")
    head = first[1][0]
    delimiter = _delimiter(head)
    cells = _cells(head, delimiter)
    header_lines = _header_lines(cells, path.name)
    row_count = len(first[1]) - header_lines + sum(len(lines) for _, lines in blocks)
    if not row_count:
        raise refused(path.name, "it holds a header line and no rows: give at least one row")
    rows = CsvRows(path, delimiter, header_lines, len(cells), DEFAULT_TYPE)
    return DataSetSource(path, DEFAULT_TYPE, (len(cells),), row_count, None, rows)


def _header_lines(cells: list[str], name: str) -> int:
    if len(cells) * 8 > ROW_BYTES:
        raise refused(name, f"it has {len(cells)} columns: is the delimiter right?", Reason.LIMIT_EXCEEDED)
    numbers = [_is_number(cell) for cell in cells]
    if all(numbers):
        return 0
    if any(numbers):
        odd = cells[numbers.index(False)]
        raise refused(name, f"its first line mixes numbers with {odd[:40]!r}: make it all names, or all numbers")
    return 1


def _delimiter(line: bytes) -> str:
    return next((mark for mark in (";", "\t") if mark.encode() in line), ",")


def _cells(line: bytes, delimiter: str) -> list[str]:
    text = line.decode("utf-8", "replace")
    try:
        return next(csv.reader([text], delimiter=delimiter), [""])
    except csv.Error:
        return text.split(delimiter)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _line_blocks(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Lines in blocks, each with the number of its first line (from 1); only trailing lines may be blank."""
    number, blank = 1, 0
    for text in _text_blocks(path):
        lines = text.splitlines()
        kept = [line for line in lines if line.strip()]
        filled = next((index for index, line in enumerate(lines) if not line.strip()), len(lines))
        if not blank and filled < len(lines):
            blank = number + filled
        if kept and blank and blank < number + len(kept):
            raise refused(path.name, f"line {blank} is blank: remove it, or write nan for missing numbers")
        if kept:
            yield number, kept
        number += len(lines)


def _text_blocks(path: Path) -> Iterator[bytes]:
    """The file in blocks of whole lines."""
    with path.open("rb") as file:
        waiting = file.read(len(_BYTE_ORDER_MARK)).removeprefix(_BYTE_ORDER_MARK)
        while block := file.read(CSV_BLOCK_BYTES):
            waiting += block
            end = waiting.rfind(b"\n") + 1
            if end:
                yield waiting[:end]
                waiting = waiting[end:]
            elif len(waiting) > CSV_LINE_BYTES:
                raise refused(path.name, f"it has a line of more than {CSV_LINE_BYTES} bytes: is it a CSV file?")
    if waiting:
        yield waiting

"""CSV data sets: headers, types, and errors that name the line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hivefold import limits
from hivefold.datasets import DataSetSource, open_data_set, text
from hivefold.errors import DataRefusedError


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    return tmp_path / "rows.csv"


def numbers(source: DataSetSource, dtype: str = "<f4") -> list[list[float]]:
    content = b"".join(source.pieces(8))
    assert len(content) == source.size_bytes
    return np.frombuffer(content, dtype).reshape(source.row_count, *source.row_shape).tolist()  # type: ignore[no-any-return]


def message(path: Path, data_type: str = "FP32") -> str:
    with pytest.raises(DataRefusedError) as caught:
        list(open_data_set(path).as_type(data_type).pieces())
    return caught.value.message


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,2\n3,4\n",
        b"1,2\n3,4",
        b"\xef\xbb\xbfa,b\r\n1,2\r\n3,4\r\n",
        b'"first, quoted",b\n"1",2\n 3 , 4 \n\n  \n',
        b"1;2\n3;4\n",
        b"a\tb\n1\t2\n3\t4\n",
    ],
)
def test_a_header_line_is_told_from_numbers(csv: Path, content: bytes) -> None:
    """Delimiters, quotes, line ends, byte order marks and trailing blank lines as spreadsheets write them."""
    csv.write_bytes(content)
    source = open_data_set(csv)
    assert (source.data_type, source.row_shape, source.row_count) == ("FP32", (2,), 2)
    assert numbers(source) == [[1, 2], [3, 4]]


def test_text_is_read_as_the_type_that_is_wanted(csv: Path) -> None:
    """Integers come out exactly or not at all."""
    csv.write_bytes(b"1,2\n-3,1e3\n")
    assert numbers(open_data_set(csv).as_type("INT64"), "<i8") == [[1, 2], [-3, 1000]]
    assert "line 2" in message(csv, "UINT8")
    csv.write_bytes(b"1\n2\n2.5\n")
    assert "line 3" in message(csv, "INT32")
    assert "no booleans" in message(csv, "BOOL")


def test_nan_and_infinity_are_numbers(csv: Path) -> None:
    """What to do with NaN is the job's policy, not the reader's."""
    csv.write_bytes(b"nan,1\ninf,-inf\n")
    (first, second) = numbers(open_data_set(csv))
    assert np.isnan(first[0])
    assert second == [float("inf"), float("-inf")]


@pytest.mark.parametrize(
    ("content", "fix"),
    [
        (b"a,b\n1,2\n3\n4,5\n", "line 3 has 1 columns, the first has 2"),
        (b"1,2\n3,4,5\n", "line 2 has 3 columns"),
        (b"a,b\n1,2\n3,x\n", "line 3, column 2: 'x' is not a number"),
        (b"1,2\n3,\n", "line 2, column 2: is empty"),
        (b"1,2\n\n3,4\n", "line 2 is blank"),
        (b"\n1,2\n", "line 1 is blank"),
        (b"a,b\n", "no rows"),
        (b"\n\n", "empty"),
        (b"1,x\n2,3\n", "mixes numbers with 'x'"),
    ],
)
def test_a_bad_line_is_named(csv: Path, content: bytes, fix: str) -> None:
    """Line numbers count from 1 and include the header, as editors show them."""
    csv.write_bytes(content)
    assert fix in message(csv)


def test_lines_keep_their_numbers_over_many_blocks(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks end between lines, wherever the bytes fall."""
    monkeypatch.setattr(text, "CSV_BLOCK_BYTES", 7)
    rows = [[index, index * 0.5, -index] for index in range(100)]
    csv.write_text("x,y,z\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    assert numbers(open_data_set(csv)) == rows
    csv.write_text(csv.read_text() + "1,2\n")
    assert "line 102 has 2 columns" in message(csv)
    csv.write_text("x\n1\n2\n\n\n\n3\n")
    assert "line 4 is blank" in message(csv)


def test_a_line_without_end_is_refused(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded whatever the file holds."""
    monkeypatch.setattr(text, "CSV_LINE_BYTES", 100)
    monkeypatch.setattr(text, "CSV_BLOCK_BYTES", 50)
    csv.write_bytes(b"1" * 1000)
    assert "is it a CSV file" in message(csv)
    assert limits.CSV_LINE_BYTES > limits.CSV_BLOCK_BYTES

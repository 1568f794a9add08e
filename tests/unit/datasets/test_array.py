"""open_array: an array in memory is the same data set as the file that it would be saved to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hivefold.datasets import open_array, open_data_set
from hivefold.errors import DataRefusedError, Reason

ROWS = np.arange(24).reshape(6, 2, 2)


@pytest.mark.parametrize(
    "array",
    [ROWS.astype("<f4"), ROWS.astype(">f8"), ROWS.astype("<i4")[::2], np.asfortranarray(ROWS.astype("<u2"))],
    ids=["plain", "big-endian", "strided", "by columns"],
)
def test_an_array_reads_as_its_rows(array: NDArray[Any]) -> None:
    """Whatever its layout, rows come in order, row-major and little-endian."""
    source = open_array(array)
    content = b"".join(source.pieces(16))
    assert content == np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
    assert (source.row_count, source.row_shape) == (array.shape[0], (2, 2))
    assert source.size_bytes == len(content)


@pytest.mark.parametrize(
    ("stored", "wanted", "lossy"),
    [
        ("<f4", "FP64", False),
        ("<f8", "FP32", True),
        ("|u1", "FP32", False),
        ("<f8", "FP32", False),
        ("<i8", "INT8", True),
    ],
)
def test_conversion_is_that_of_files(tmp_path: Path, stored: str, wanted: str, lossy: bool) -> None:
    """What a saved file would become, or be refused for, an array is too."""
    array = (ROWS * 100).astype(stored)
    np.save(tmp_path / "a.npy", array)
    answers: list[bytes | Reason] = []
    for source in (open_array(array), open_data_set(tmp_path / "a.npy")):
        try:
            answers.append(b"".join(source.as_type(wanted, lossy=lossy).pieces()))
        except DataRefusedError as error:
            answers.append(error.reason)
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "array", [np.float32(3.0).reshape(()), np.empty((0, 4), "<f4"), np.array(["text"]), np.array([{}], object)]
)
def test_what_is_no_rows_of_numbers_is_refused(array: NDArray[Any]) -> None:
    """Single numbers, nothing, texts and objects are no data set, and the message says what is one."""
    with pytest.raises(DataRefusedError, match="first axis counting the rows"):
        open_array(array)

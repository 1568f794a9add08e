"""Laws of data sets: what was saved is what is read, in any format; other bytes give a refusal."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from hivefold.datasets import open_data_set
from hivefold.datasets.data_types import description
from hivefold.errors import DataRefusedError

TYPES = ["<i1", "<u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "|b1", ">f4", ">i8", ">u2"]
Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]


def arrays() -> st.SearchStrategy[Array]:
    return st.sampled_from(TYPES).flatmap(
        lambda dtype: npst.arrays(np.dtype(dtype), npst.array_shapes(min_dims=1, max_dims=4, max_side=6))
    )


def stream(content: bytes, suffix: str, piece_bytes: int = 7, wanted: str = "") -> Array:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(content)
        source = open_data_set(path)
        source = source.as_type(wanted) if wanted else source
        read = b"".join(source.pieces(piece_bytes))
        assert len(read) == source.size_bytes
        if source.data_offset_bytes is not None:
            assert content[source.data_offset_bytes :].startswith(read)
        return np.frombuffer(read, description(source.data_type)).reshape(source.row_count, *source.row_shape)


def saved(save: Callable[..., None], array: Array) -> bytes:
    file = io.BytesIO()
    save(file, array)
    return file.getvalue()


@given(arrays(), st.sampled_from([(np.save, ".npy"), (np.savez, ".npz"), (np.savez_compressed, ".npz")]))
def test_what_numpy_saves_is_what_is_read(array: Array, way: tuple[Callable[..., None], str]) -> None:
    """Bit for bit, as little-endian, whatever the type, shape and piece size."""
    read = stream(saved(way[0], array), way[1])
    assert read.shape == array.shape
    assert read.tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()


@given(npst.arrays(np.float32, st.tuples(st.integers(1, 20), st.integers(1, 5)), elements=st.floats(width=32)))
def test_csv_gives_back_the_numbers_that_were_written(array: Array) -> None:
    """Nine digits carry a float32, NaN and infinity included."""
    text = io.StringIO()
    np.savetxt(text, array, "%.9g", delimiter=",")
    read = stream(text.getvalue().encode(), ".csv")
    assert np.array_equal(read, array, equal_nan=True)


@given(st.sampled_from(TYPES), st.sampled_from(["FP32", "FP64", "INT64", "INT32"]), st.data())
def test_conversion_changes_no_value_or_is_refused(dtype: str, wanted: str, data: st.DataObject) -> None:
    """As numpy's safe casting."""
    array = data.draw(npst.arrays(np.dtype(dtype), (5, 2)))
    content = saved(np.save, array)
    if np.can_cast(array.dtype, np.dtype(description(wanted)), "safe"):
        assert np.array_equal(stream(content, ".npy", wanted=wanted), array, equal_nan=array.dtype.kind == "f")
    else:
        with pytest.raises(DataRefusedError):
            stream(content, ".npy", wanted=wanted)


SEEDS = [
    saved(np.save, np.ones((3, 4), np.float32)),
    saved(np.savez, np.ones((3, 4), np.float32)),
    saved(np.savez_compressed, np.ones((3, 4), np.float32)),
    b"a,b\n1,2\n3,4\n",
]


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    st.integers(0, 600),
    st.binary(max_size=10),
    st.sampled_from([".npy", ".npz", ".csv"]),
)
def test_damaged_files_give_rows_or_a_refusal(
    seed: bytes, changes: list[tuple[int, int]], size: int, tail: bytes, suffix: str
) -> None:
    """Bytes changed, cut and appended never raise anything else."""
    content = bytearray(seed)
    for position, value in changes:
        content[position % len(content)] = value
    try:
        stream(bytes(content[:size]) + tail, suffix)
    except DataRefusedError as error:
        assert len(error.message) < 1000  # noqa: PT017 - either outcome is fine, a refusal must be short


@given(st.binary(max_size=300), st.sampled_from([".npy", ".npz", ".csv"]))
def test_any_bytes_give_rows_or_a_refusal(content: bytes, suffix: str) -> None:
    """So do bytes that never were a data set."""
    try:
        stream(content, suffix)
    except DataRefusedError as error:
        assert error.message  # noqa: PT017

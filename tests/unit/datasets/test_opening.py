"""open_data_set: what it reads, streams, references, converts and refuses."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hivefold.datasets import DataSetSource, open_data_set
from hivefold.errors import DataRefusedError, Reason

ROWS = np.arange(24, dtype=np.float32).reshape(6, 2, 2)


def read(source: DataSetSource, piece_bytes: int = 16) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """The streamed rows as an array, checked to come in pieces of one size."""
    pieces = list(source.pieces(piece_bytes))
    assert all(len(piece) == piece_bytes for piece in pieces[:-1])
    content = b"".join(pieces)
    assert len(content) == source.size_bytes
    names = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8", "UINT8": "|u1", "INT32": "<i4", "FP16": "<f2"}
    return np.frombuffer(content, names[source.data_type]).reshape(source.row_count, *source.row_shape)


def refusal(path: Path, member: str = "") -> DataRefusedError:
    with pytest.raises(DataRefusedError) as caught:
        list(open_data_set(path, member=member).pieces())
    return caught.value


def test_an_array_file_gives_its_rows_and_where_they_lie(tmp_path: Path) -> None:
    """The first dimension is the rows; the offset is that of row 0."""
    path = tmp_path / "a.npy"
    np.save(path, ROWS)
    source = open_data_set(path)
    assert (source.data_type, source.row_shape, source.row_count, source.row_bytes) == ("FP32", (2, 2), 6, 16)
    offset = source.reference_offset_bytes()
    assert path.read_bytes()[offset:] == ROWS.tobytes()
    assert np.array_equal(read(source), ROWS)


def test_rows_may_be_single_numbers(tmp_path: Path) -> None:
    """A vector is rows of shape ()."""
    np.save(tmp_path / "v.npy", np.arange(5))
    source = open_data_set(tmp_path / "v.npy")
    assert (source.data_type, source.row_shape, source.row_count) == ("INT64", (), 5)


def test_a_stored_archive_member_can_be_referenced(tmp_path: Path) -> None:
    """numpy.savez does not compress: the member's bytes lie in the file."""
    path = tmp_path / "a.npz"
    np.savez(path, first=ROWS, second=ROWS + 1)
    source = open_data_set(path, member="second")
    offset = source.reference_offset_bytes()
    assert path.read_bytes()[offset : offset + source.size_bytes] == (ROWS + 1).tobytes()
    assert np.array_equal(read(source), ROWS + 1)


def test_a_compressed_archive_member_is_streamed_but_not_referenced(tmp_path: Path) -> None:
    """Nodes read plain bytes only; the refusal says how to make them."""
    path = tmp_path / "a.npz"
    np.savez_compressed(path, rows=ROWS)
    source = open_data_set(path)
    assert np.array_equal(read(source, 12), ROWS)
    with pytest.raises(DataRefusedError, match=r"numpy\.save"):
        source.reference_offset_bytes()


def test_big_endian_rows_are_turned_round(tmp_path: Path) -> None:
    """What is uploaded is always little-endian."""
    np.save(tmp_path / "b.npy", ROWS.astype(">f4"))
    source = open_data_set(tmp_path / "b.npy")
    assert source.data_offset_bytes is None
    assert np.array_equal(read(source), ROWS)


@pytest.mark.parametrize("compressed", [False, True])
def test_conversion_keeps_every_value_or_is_asked_for(tmp_path: Path, compressed: bool) -> None:
    """UINT8 fits into FP32; FP64 does not, unless rounding is allowed."""
    path = tmp_path / "a.npz"
    save = np.savez_compressed if compressed else np.savez
    save(path, bytes=np.arange(256, dtype=np.uint8).reshape(64, 4), doubles=ROWS.astype(np.float64) / 3)
    assert np.array_equal(read(open_data_set(path, member="bytes").as_type("FP32")).ravel(), np.arange(256))
    doubles = open_data_set(path, member="doubles")
    with pytest.raises(DataRefusedError, match="--cast") as caught:
        doubles.as_type("FP32")
    assert caught.value.reason is Reason.DATA_TYPE_MISMATCH
    assert np.array_equal(read(doubles.as_type("FP32", lossy=True)), (ROWS.astype(np.float64) / 3).astype(np.float32))


def test_conversion_never_wraps_nor_overflows(tmp_path: Path) -> None:
    """Rounding may be allowed, other numbers may not come out."""
    np.save(tmp_path / "i.npy", np.array([[1 << 40]]))
    np.save(tmp_path / "f.npy", np.array([[1e300]]))
    for name, wanted in (("i.npy", "INT32"), ("f.npy", "FP32")):
        with pytest.raises(DataRefusedError, match="outside the range"):
            list(open_data_set(tmp_path / name).as_type(wanted, lossy=True).pieces())
    with pytest.raises(DataRefusedError, match="choose what the numbers should become"):
        open_data_set(tmp_path / "f.npy").as_type("INT32", lossy=True)


def broken(write: Callable[[Path], object]) -> Callable[[Path], Path]:
    def written(folder: Path) -> Path:
        path = folder / "bad.npy"
        write(path)
        return path

    return written


def save(array: object, **options: bool) -> Callable[[Path], Path]:
    return broken(lambda path: np.save(path, np.asarray(array), **options))


def cut(size: int) -> Callable[[Path], Path]:
    def written(folder: Path) -> Path:
        path = save(ROWS)(folder)
        content = path.read_bytes()
        path.write_bytes(content[:size] if size > 0 else content + bytes(-size))
        return path

    return written


@pytest.mark.parametrize(
    ("make", "fix"),
    [
        (save(np.asfortranarray(ROWS[:, :, 0])), "ascontiguousarray"),
        (save(np.array([{}, None], dtype=object), allow_pickle=True), "astype('float32')"),
        (save(np.array([(1, 2)], dtype=[("a", "i4"), ("b", "f4")])), "one plain array"),
        (save(np.array(["text"])), "astype('float32')"),
        (save(np.ones((2, 2), np.complex64)), "astype('float32')"),
        (save(np.float32(1)), "single number"),
        (save(np.ones((0, 4))), "empty"),
        (save(np.ones((4, 0))), "empty"),
        (save(np.ones((1,) * 10)), "dimensions"),
        (cut(-3), "one array a file"),
        (cut(4), "numpy.save"),
        (cut(9), "inside its header"),
        (cut(40), "inside its header"),
        (cut(130), "truncated"),
        (broken(lambda path: path.write_bytes(b"")), "empty"),
        (broken(lambda path: path.write_bytes(pickle.dumps(ROWS))), "pickle"),
        (broken(lambda path: path.write_bytes(b"PK\x03\x04" + bytes(60))), "archive is damaged"),
        (broken(lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x40\x00" + b"{" * 64)), "header is damaged"),
        (broken(lambda path: path.write_bytes(b"\x93NUMPY\x09\x00\x40\x00")), "version 9"),
        (broken(lambda path: path.write_bytes(b"\x93NUMPY\x02\x00\xff\xff\xff\xff")), "header claims"),
        (broken(lambda path: path.write_bytes(b"something else")), "none of .npy"),
    ],
)
def test_a_file_that_is_no_array_of_rows_is_refused_with_the_fix(
    tmp_path: Path, make: Callable[[Path], Path], fix: str
) -> None:
    """Each refusal names the file and what to do."""
    error = refusal(make(tmp_path))
    assert fix in error.message
    assert "bad.npy" in error.message


def test_a_missing_file_is_refused_by_its_path(tmp_path: Path) -> None:
    """FILE_UNREADABLE is for what the system refuses."""
    assert refusal(tmp_path / "none.npy").reason is Reason.FILE_UNREADABLE
    assert refusal(tmp_path).reason is Reason.FILE_UNREADABLE


def test_an_archive_of_several_arrays_wants_a_name(tmp_path: Path) -> None:
    """The refusal lists what there is."""
    np.savez(tmp_path / "a.npz", first=ROWS, second=ROWS)
    assert "first, second" in refusal(tmp_path / "a.npz").message
    assert "first, second" in refusal(tmp_path / "a.npz", "third").message
    np.save(tmp_path / "a.npy", ROWS)
    assert "only .npz" in refusal(tmp_path / "a.npy", "first").message
    with zipfile.ZipFile(tmp_path / "empty.npz", "w"):
        pass
    assert "no array" in refusal(tmp_path / "empty.npz").message


def test_a_damaged_compressed_member_is_refused_while_it_is_read(tmp_path: Path) -> None:
    """The archive's checksum is checked at the end of the stream."""
    path = tmp_path / "a.npz"
    np.savez_compressed(path, rows=np.random.default_rng(1).random((1000, 4)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert "a.npz" in refusal(path).message


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    """A short stream never passes for a whole one."""
    path = tmp_path / "a.npy"
    np.save(path, ROWS)
    source = open_data_set(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataRefusedError, match="changed while"):
        list(source.pieces())

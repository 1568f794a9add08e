"""Output files: NumPy and zipfile read back what was written, and sizes are as announced."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hivefold.datasets import archive, open_data_set
from hivefold.datasets.writing import CsvWriter, NpyWriter, NpzWriter, TensorLayout, TensorWriter
from hivefold.errors import ConflictError, DataRefusedError

LABELS = np.arange(5, dtype=np.int64)
SCORES = np.random.default_rng(1).random((5, 3)).astype(np.float32)
TENSORS = (TensorLayout("label", "INT64", (5,)), TensorLayout("scores", "FP32", (5, 3)))


def written(writer: TensorWriter, *contents: bytes) -> bytes:
    """The file, each tensor given in two pieces."""
    file = b""
    for index, content in enumerate(contents):
        file += writer.begin(index)
        for piece in (content[:7], content[7:]):
            writer.add(piece)
            file += piece
        file += writer.end()
    return file + writer.close()


def test_npy_is_what_numpy_writes() -> None:
    """Byte for byte."""
    expected = io.BytesIO()
    np.save(expected, SCORES)
    writer = NpyWriter(TENSORS[1:])
    assert written(writer, SCORES.tobytes()) == expected.getvalue()
    assert writer.total_bytes == len(expected.getvalue())


def test_npy_holds_exactly_one_tensor() -> None:
    """The refusal says what to take instead."""
    with pytest.raises(ConflictError, match=r"\.npz"):
        NpyWriter(TENSORS)


@pytest.mark.parametrize("zip64_bytes", [0xFFFF_FFFF, 200, 0])
def test_npz_reads_back_with_numpy_and_zipfile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zip64_bytes: int
) -> None:
    """Also with the fields of archives beyond 4 GiB, tried here from a few bytes on."""
    monkeypatch.setattr(archive, "ZIP64_BYTES", zip64_bytes)
    writer = NpzWriter(TENSORS)
    file = written(writer, LABELS.tobytes(), SCORES.tobytes())
    assert len(file) == writer.total_bytes
    with zipfile.ZipFile(io.BytesIO(file)) as opened:
        assert opened.testzip() is None
    loaded = np.load(io.BytesIO(file))
    assert np.array_equal(loaded["label"], LABELS)
    assert np.array_equal(loaded["scores"], SCORES)
    path = tmp_path / "out.npz"
    path.write_bytes(file)
    assert open_data_set(path, member="scores").reference_offset_bytes() > 0


def test_names_in_archives_stay_inside_their_folder() -> None:
    """A model's tensor names are not trusted with other people's files."""
    tensors = [TensorLayout(name, "UINT8", (1,)) for name in ("../../up", "/root", "a/b", "c\\d")]
    file = written(NpzWriter(tensors), *[b"x"] * 4)
    assert zipfile.ZipFile(io.BytesIO(file)).namelist() == ["_/_/up.npy", "_/root.npy", "a/b.npy", "c_d.npy"]


def test_csv_has_a_line_a_row_and_reads_back_to_the_same_numbers() -> None:
    """Nine digits are enough for FP32."""
    writer = CsvWriter(TENSORS)
    text = (writer.header() + b"".join(writer.lines(5, [LABELS.tobytes(), SCORES.tobytes()]))).decode()
    lines = list(csv.reader(io.StringIO(text)))
    assert lines[0] == ["label", "scores_0", "scores_1", "scores_2"]
    assert [int(line[0]) for line in lines[1:]] == LABELS.tolist()
    assert np.array_equal(np.array([line[1:] for line in lines[1:]], np.float32), SCORES)


@pytest.mark.parametrize(("data_type", "dtype"), [("FP16", "<f2"), ("FP32", "<f4"), ("FP64", "<f8")])
def test_csv_keeps_every_bit_of_a_float(data_type: str, dtype: str) -> None:
    """Over many blocks of rows."""
    bits = np.random.default_rng(2).integers(0, 256, 8 * 40_000, np.uint8).view(dtype)
    values = bits[np.isfinite(bits)]
    writer = CsvWriter([TensorLayout("x", data_type, values.shape)])
    text = b"".join(writer.lines(len(values), [values.tobytes()]))
    with np.errstate(over="ignore"):
        assert np.array_equal(np.array(text.split(), np.float64).astype(dtype), values)


def test_csv_writes_booleans_as_numbers_and_quotes_names() -> None:
    """Other programs read 0 and 1."""
    writer = CsvWriter([TensorLayout('a,"b"', "BOOL", (2,))])
    assert writer.header() + b"".join(writer.lines(2, [b"\x01\x00"])) == b'"a,""b"""\n1\n0\n'


def test_types_without_a_spelling_are_refused() -> None:
    """Before anything is written."""
    for writer in (NpyWriter, NpzWriter, CsvWriter):
        with pytest.raises(DataRefusedError, match="BF16"):
            writer([TensorLayout("x", "BF16", (1,))])

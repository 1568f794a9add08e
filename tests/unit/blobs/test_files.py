"""Files as content: the same manifest, ranges verified."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hivefold.blobs.content import upload_bytes
from hivefold.blobs.files import manifest_of_file, verified_file_range
from hivefold.blobs.memory import MemoryChunks
from hivefold.errors import DataRefusedError, InvalidRequestError, Reason
from hivefold.limits import CHUNK_BYTES


def _file(directory: Path, chunks: int = 3) -> tuple[Path, bytes]:
    path = directory / "data.npy"
    data = b"".join(bytes([number]) * CHUNK_BYTES for number in range(chunks)) + b"end"
    path.write_bytes(data)
    return path, data


async def test_a_file_has_the_root_of_its_bytes(tmp_path: Path) -> None:
    """By path or uploaded: one blob."""
    path, data = _file(tmp_path)
    assert manifest_of_file(path).ref == await upload_bytes(MemoryChunks(), data)


def test_an_empty_file_has_a_manifest(tmp_path: Path) -> None:
    """Of no chunks; its empty range can be read."""
    path = tmp_path / "empty"
    path.touch()
    manifest = manifest_of_file(path)
    assert (manifest.size_bytes, manifest.chunk_count) == (0, 0)
    assert bytes(verified_file_range(path, manifest, 0, 0)) == b""


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 1), (CHUNK_BYTES - 1, 2), (5, 2 * CHUNK_BYTES), (3 * CHUNK_BYTES, 3), (0, 3 * CHUNK_BYTES + 3), (7, 0)],
)
def test_a_range_holds_exactly_its_bytes(tmp_path: Path, offset: int, length: int) -> None:
    """Within a chunk, over borders, at the end, all, nothing."""
    path, data = _file(tmp_path)
    found = verified_file_range(path, manifest_of_file(path), offset, length)
    assert bytes(found) == data[offset : offset + length]
    assert found.readonly


def test_a_range_outside_the_content_is_refused(tmp_path: Path) -> None:
    """Never shorter than asked for."""
    path, data = _file(tmp_path)
    with pytest.raises(InvalidRequestError, match="not within the content"):
        verified_file_range(path, manifest_of_file(path), len(data) - 1, 2)


def test_a_changed_file_is_refused_where_it_changed(tmp_path: Path) -> None:
    """The chunk is named; ranges that do not touch it are still good."""
    path, data = _file(tmp_path)
    manifest = manifest_of_file(path)
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), b"!", CHUNK_BYTES + 10)
    with pytest.raises(DataRefusedError, match="chunk 1 of") as refusal:
        verified_file_range(path, manifest, 0, len(data))
    assert refusal.value.reason is Reason.DIGEST_MISMATCH
    assert bytes(verified_file_range(path, manifest, 0, 10)) == data[:10]


def test_a_keyed_manifest_takes_its_key(tmp_path: Path) -> None:
    """With the key a range is read and a change is found; without it, or with another, nothing is."""
    path, data = _file(tmp_path)
    manifest = manifest_of_file(path).keyed("d" + 32 * "0", b"secret")

    assert bytes(verified_file_range(path, manifest, 5, 100, secret=b"secret")) == data[5:105]
    for secret, reason in ((b"", Reason.JOB_ERASED), (b"other", Reason.DIGEST_MISMATCH)):
        with pytest.raises(DataRefusedError) as refusal:
            verified_file_range(path, manifest, 5, 100, secret=secret)
        assert refusal.value.reason is reason
    os.truncate(path, CHUNK_BYTES + 1)
    with pytest.raises(DataRefusedError, match="chunk 1 of"):
        verified_file_range(path, manifest, CHUNK_BYTES, 5, secret=b"secret")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    """A short read is not a short answer."""
    path, _ = _file(tmp_path)
    manifest = manifest_of_file(path)
    os.truncate(path, CHUNK_BYTES + 1)
    with pytest.raises(DataRefusedError, match="chunk 1 of"):
        verified_file_range(path, manifest, CHUNK_BYTES, 5)


def test_what_is_no_readable_file_is_refused_with_its_path(tmp_path: Path) -> None:
    """A missing file, a directory, a name with a zero byte."""
    for path in (tmp_path / "missing", tmp_path, Path("zero\0byte")):
        with pytest.raises(DataRefusedError) as refusal:
            manifest_of_file(path)
        assert refusal.value.reason is Reason.FILE_UNREADABLE
        assert refusal.value.metadata["path"] == str(path)

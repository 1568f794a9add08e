"""Fetching model files: verified, resumed where it was cut, told as it goes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from hivefold.blobs.content import upload_bytes
from hivefold.blobs.memory import MemoryChunks
from hivefold.errors import BrokerUnavailableError, DataRefusedError
from hivefold.limits import PLAIN_CHUNK_BYTES
from hivefold.models.limits import PARTIALS_KEPT
from hivefold.v1 import model_pb2
from node.content import Content
from node.residency.files import ModelFiles, Transfer

CONTENT = os.urandom(5 * PLAIN_CHUNK_BYTES + 17)


class CutChunks(MemoryChunks):
    """Chunks of a broker that goes away after so many."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 1000
        self.read = 0

    async def get(self, key: str) -> bytes:
        if key.startswith("chunk"):
            if not self.left:
                raise BrokerUnavailableError("gone")
            self.left, self.read = self.left - 1, self.read + 1
        return await super().get(key)


@pytest.fixture
def chunks() -> CutChunks:
    return CutChunks()


@pytest.fixture
async def model(chunks: CutChunks) -> model_pb2.Model:
    found = model_pb2.Model(name="m", version=1, digest=hashlib.sha256(CONTENT).hexdigest())
    found.artifact.CopyFrom(await upload_bytes(chunks, CONTENT))
    return found


def files(folder: Path, chunks: CutChunks) -> ModelFiles:
    return ModelFiles(folder, Content(chunks), ())


async def test_a_fetch_goes_on_where_it_was_cut(tmp_path: Path, chunks: CutChunks, model: model_pb2.Model) -> None:
    """Also by another process: what is on the disk is not read again."""
    chunks.left = 3
    with pytest.raises(BrokerUnavailableError):
        await files(tmp_path, chunks).fetched(model)
    kept = sum(file.stat().st_size for file in tmp_path.glob("*.partial"))
    chunks.left, before = 1000, chunks.read
    path = await files(tmp_path, chunks).fetched(model)

    assert path.read_bytes() == CONTENT
    assert kept > 0
    assert chunks.read - before == 6 - kept // PLAIN_CHUNK_BYTES
    assert list(tmp_path.glob("*.partial")) == []


async def test_what_was_altered_on_the_disk_is_fetched_again(
    tmp_path: Path, chunks: CutChunks, model: model_pb2.Model
) -> None:
    """From the first chunk on that is not as the manifest says."""
    altered = bytearray(CONTENT[: 4 * PLAIN_CHUNK_BYTES])
    altered[2 * PLAIN_CHUNK_BYTES + 5] ^= 1
    (tmp_path / f"{model.digest}.partial").write_bytes(altered)
    path = await files(tmp_path, chunks).fetched(model)

    assert path.read_bytes() == CONTENT
    assert chunks.read == 4


async def test_a_fetch_says_how_far_it_is(tmp_path: Path, chunks: CutChunks, model: model_pb2.Model) -> None:
    """In verified bytes, while it lasts."""
    found = files(tmp_path, chunks)
    seen: list[Transfer] = []
    get = chunks.get

    async def watched(key: str) -> bytes:
        seen.extend(Transfer(one.done_bytes, one.total_bytes) for one in found.fetching.values())
        return await get(key)

    chunks.get = watched  # type: ignore[method-assign]
    await found.fetched(model)

    assert {one.total_bytes for one in seen} == {len(CONTENT)}
    assert [one.done_bytes for one in seen] == sorted(one.done_bytes for one in seen)
    assert found.fetching == {}


async def test_content_of_another_digest_is_not_kept(tmp_path: Path, chunks: CutChunks, model: model_pb2.Model) -> None:
    """Nor gone on with."""
    model.digest = "0" * 64
    with pytest.raises(DataRefusedError):
        await files(tmp_path, chunks).fetched(model)

    assert list(tmp_path.iterdir()) == []


async def test_files_that_were_never_finished_are_bounded(
    tmp_path: Path, chunks: CutChunks, model: model_pb2.Model
) -> None:
    """The ones touched longest ago go first."""
    for number in range(PARTIALS_KEPT + 3):
        file = tmp_path / f"{number:064d}.partial"
        file.write_bytes(b"cut")
        os.utime(file, (number, number))
    await files(tmp_path, chunks).fetched(model)

    left = sorted(int(file.stem) for file in tmp_path.glob("*.partial"))
    assert left == list(range(3, PARTIALS_KEPT + 3)) or left == list(range(4, PARTIALS_KEPT + 3))


async def test_files_of_others_in_the_folder_may_come_and_go(
    tmp_path: Path, chunks: CutChunks, model: model_pb2.Model
) -> None:
    """Measured peaks are written there, too: their unfinished file may be gone when it is looked at."""
    gone = tmp_path / ".peaks.json.x1.partial"
    gone.symlink_to(tmp_path / "renamed meanwhile")
    path = await files(tmp_path, chunks).fetched(model)

    assert path.read_bytes() == CONTENT
    assert gone.is_symlink()

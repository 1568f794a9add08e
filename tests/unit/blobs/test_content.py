"""Content in and out of a store: what is verified, what is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hivefold.blobs.content import (
    get_manifest,
    has,
    put_manifest,
    read_all,
    read_into,
    read_range,
    upload,
    upload_bytes,
)
from hivefold.blobs.manifest import Manifest, part_key
from hivefold.blobs.memory import MemoryChunks
from hivefold.errors import DataRefusedError, InvalidRequestError, LimitExceededError, NotFoundError, Reason
from hivefold.limits import BLOB_WINDOW, PLAIN_CHUNK_BYTES


def _content(chunks: int, rest: int = 5) -> bytes:
    return b"".join(bytes([number % 251]) * PLAIN_CHUNK_BYTES for number in range(chunks)) + b"r" * rest


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_the_root_does_not_depend_on_how_the_bytes_came() -> None:
    """Pieces of any size, empty ones too, give the same blob as the whole."""
    data = _content(2)
    whole = await upload_bytes(MemoryChunks(), data)
    cut = await upload(
        MemoryChunks(), _pieces(data[:1], b"", data[1 : PLAIN_CHUNK_BYTES + 9], data[PLAIN_CHUNK_BYTES + 9 :])
    )
    assert cut == whole


async def test_equal_chunks_are_stored_once() -> None:
    """Ten equal chunks: one chunk and one manifest."""
    store = MemoryChunks()
    await upload_bytes(store, bytes(10 * PLAIN_CHUNK_BYTES))
    assert sorted(key.split(".")[0] for key in store.chunks) == ["chunk", "manifest"]


async def test_empty_content_is_content() -> None:
    """It has a root, a manifest and no chunks."""
    store = MemoryChunks()
    blob = await upload_bytes(store, b"")
    assert await read_range(store, blob.root, 0, 0) == b""
    assert [piece async for piece in read_all(store, blob.root)] == []


async def test_an_altered_chunk_is_refused_by_name() -> None:
    """Nothing of it is handed out; the chunks before it are."""
    store = MemoryChunks()
    blob = await upload_bytes(store, _content(3))
    key = (await get_manifest(store, blob.root)).chunk_key(1)
    store.chunks[key] = store.chunks[key][:-1] + b"!"
    pieces = read_all(store, blob.root)
    assert await anext(pieces) == _content(1, rest=0)
    with pytest.raises(DataRefusedError, match="chunk 1 of") as refusal:
        await anext(pieces)
    assert refusal.value.reason is Reason.DIGEST_MISMATCH
    assert refusal.value.metadata["chunk"] == "1"


async def test_an_altered_manifest_is_refused() -> None:
    """The root commits to every field of it."""
    store = MemoryChunks()
    blob = await upload_bytes(store, _content(1))
    other = await upload_bytes(store, _content(2))
    store.chunks[part_key(blob.root, 0)] = store.chunks[part_key(other.root, 0)]
    with pytest.raises(DataRefusedError, match=f"manifest of {blob.root}"):
        await get_manifest(store, blob.root)


@pytest.mark.parametrize("bytes_found", [b"\xff", b"", b"\x08\x05"])
async def test_a_manifest_that_is_none_is_refused(bytes_found: bytes) -> None:
    """Bytes that do not parse, or say nothing sensible."""
    root = "ab" * 32
    store = MemoryChunks()
    store.chunks[part_key(root, 0)] = bytes_found
    with pytest.raises(DataRefusedError):
        await get_manifest(store, root)


async def test_a_manifest_of_many_parts_comes_back_whole() -> None:
    """10 GB of content has a manifest of more than one part; part 0 is stored last."""
    count = 20_001
    manifest = Manifest(
        count * PLAIN_CHUNK_BYTES, PLAIN_CHUNK_BYTES, b"".join(number.to_bytes(32, "big") for number in range(count))
    )
    store = MemoryChunks()
    blob = await put_manifest(store, manifest)
    assert list(store.chunks) == [part_key(blob.root, 1), part_key(blob.root, 0)]
    assert await get_manifest(store, blob.root) == manifest


async def test_content_of_another_size_than_announced_is_refused() -> None:
    """Too short at the end, too long as soon as it is; then no manifest is stored."""
    store = MemoryChunks()
    with pytest.raises(DataRefusedError, match="3 bytes came where 4 were announced"):
        await upload(store, _pieces(b"abc"), size_bytes=4)
    with pytest.raises(DataRefusedError, match="announced 2"):
        await upload(store, _pieces(b"abc"), size_bytes=2)
    assert not [key for key in store.chunks if key.startswith("manifest")]


async def test_what_is_not_stored_is_not_found() -> None:
    """An unknown root, and a root that is none."""
    store = MemoryChunks()
    assert not await has(store, "ab" * 32)
    assert not await has(store, "../etc")
    with pytest.raises(NotFoundError):
        await get_manifest(store, "ab" * 32)
    with pytest.raises(InvalidRequestError, match="root digest"):
        await get_manifest(store, "../etc")


async def test_a_full_store_ends_the_upload_with_its_own_error() -> None:
    """Not with a group of errors, and not with a manifest."""
    store = MemoryChunks(capacity_bytes=2 * PLAIN_CHUNK_BYTES)
    with pytest.raises(LimitExceededError, match="full"):
        await upload_bytes(store, _content(5))
    assert not [key for key in store.chunks if key.startswith("manifest")]


class _SlowChunks(MemoryChunks):
    """Counts the calls under way."""

    def __init__(self) -> None:
        super().__init__()
        self.running = 0
        self.most_running = 0

    async def put(self, key: str, data: bytes) -> None:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        for _ in range(50):
            await asyncio.sleep(0)
        self.running -= 1
        await super().put(key, data)


async def test_an_upload_holds_a_window_and_no_more() -> None:
    """The source is read no faster than the store takes chunks: memory is bounded."""
    store = _SlowChunks()

    async def endless() -> AsyncIterator[bytes]:
        for number in range(4 * BLOB_WINDOW):
            yield number.to_bytes(4, "big") * (PLAIN_CHUNK_BYTES // 4)

    await upload(store, endless())
    assert store.most_running <= BLOB_WINDOW


async def test_a_reader_that_leaves_early_leaves_nothing_running() -> None:
    """Closing the iterator ends the gets under way."""
    store = MemoryChunks()
    blob = await upload_bytes(store, _content(40))
    pieces = read_all(store, blob.root)
    await anext(pieces)
    await pieces.aclose()
    assert len(asyncio.all_tasks()) == 1


async def test_a_range_is_read_into_memory_that_is_there() -> None:
    """Across chunk borders, into exactly the target; what lies around it stays."""
    data = _content(3)
    store = MemoryChunks()
    manifest = await get_manifest(store, (await upload_bytes(store, data)).root)
    room = bytearray(b"." * (PLAIN_CHUNK_BYTES + 20))
    await read_into(store, manifest, PLAIN_CHUNK_BYTES - 7, memoryview(room)[3:-3])
    assert room == b"..." + data[PLAIN_CHUNK_BYTES - 7 : 2 * PLAIN_CHUNK_BYTES + 7] + b"..."

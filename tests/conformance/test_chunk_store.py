"""What every ChunkStore keeps to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from hivefold.blobs.content import get_manifest, has, read_all, read_range, upload
from hivefold.blobs.jetstream import JetStreamChunks
from hivefold.bus import streams
from hivefold.errors import LimitExceededError, NotFoundError
from hivefold.limits import CHUNK_BYTES, STORED_CHUNK_BYTES
from tests.fixtures.bus import Bus, NatsBus, soon

pytestmark = pytest.mark.integration
_DIGEST = "ab" * 32


async def _pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def test_what_is_put_can_be_got(bus: Bus) -> None:
    """By everyone, byte by byte, up to the size of a chunk; the empty chunk too."""
    coordinator, node = await bus.coordinator(), await bus.node()
    data = os.urandom(CHUNK_BYTES)
    await node.chunks.put(f"chunk.{_DIGEST}", data)
    await node.chunks.put(f"manifest.{_DIGEST}.0", b"")
    assert await coordinator.chunks.get(f"chunk.{_DIGEST}") == data
    assert await coordinator.chunks.get(f"manifest.{_DIGEST}.0") == b""
    assert await node.chunks.has(f"chunk.{_DIGEST}")


async def test_a_stored_key_is_left_as_it_is(bus: Bus) -> None:
    """Putting it again succeeds and changes nothing."""
    node = (await bus.coordinator(), await bus.node())[1]
    await node.chunks.put(f"chunk.{_DIGEST}", b"first")
    await node.chunks.put(f"chunk.{_DIGEST}", b"second")
    assert await node.chunks.get(f"chunk.{_DIGEST}") == b"first"


async def test_what_is_deleted_is_gone_and_can_be_put_again(bus: Bus) -> None:
    """That key alone; deleting what is not there is no error."""
    coordinator, node = await bus.coordinator(), await bus.node()
    await node.chunks.put(f"chunk.{_DIGEST}", b"one")
    await node.chunks.put(f"manifest.{_DIGEST}.0", b"two")
    await coordinator.chunks.delete(f"chunk.{_DIGEST}")
    await coordinator.chunks.delete(f"chunk.{_DIGEST}")
    assert not await node.chunks.has(f"chunk.{_DIGEST}")
    assert await node.chunks.get(f"manifest.{_DIGEST}.0") == b"two"
    await node.chunks.put(f"chunk.{_DIGEST}", b"again")
    assert await node.chunks.get(f"chunk.{_DIGEST}") == b"again"


async def test_a_key_that_is_not_stored_is_not_found(bus: Bus) -> None:
    """As an error of get, as an answer of has."""
    node = (await bus.coordinator(), await bus.node())[1]
    assert not await node.chunks.has(f"chunk.{_DIGEST}")
    with pytest.raises(NotFoundError, match=_DIGEST):
        await node.chunks.get(f"chunk.{_DIGEST}")


async def test_more_than_a_chunk_is_refused(bus: Bus) -> None:
    """The broker would not take it."""
    node = await bus.node()
    with pytest.raises(LimitExceededError, match=f"at most {STORED_CHUNK_BYTES}"):
        await node.chunks.put(f"chunk.{_DIGEST}", bytes(STORED_CHUNK_BYTES + 1))


async def test_content_comes_back_as_it_went_in(bus: Bus) -> None:
    """Whole and in ranges, uploaded by the coordinator, read with a node's rights."""
    coordinator, node = await bus.coordinator(), await bus.node()
    data = os.urandom(20 * CHUNK_BYTES + 17)
    blob = await upload(coordinator.chunks, _pieces(data, 1_000_003))
    assert blob.size_bytes == len(data)
    assert b"".join([piece async for piece in read_all(node.chunks, blob.root)]) == data
    assert await read_range(node.chunks, blob.root, CHUNK_BYTES - 1, 2) == data[CHUNK_BYTES - 1 : CHUNK_BYTES + 1]
    assert (await get_manifest(node.chunks, blob.root)).ref == blob
    assert await has(node.chunks, blob.root)


async def test_content_outlives_the_broker(bus: Bus) -> None:
    """An upload goes on after a kill -9 of the server; nothing of it is lost."""
    coordinator = await bus.coordinator()
    data = os.urandom(3 * CHUNK_BYTES)
    first_half_sent = asyncio.Event()
    server_is_back = asyncio.Event()

    async def halting() -> AsyncIterator[bytes]:
        yield data[:CHUNK_BYTES]
        first_half_sent.set()
        await server_is_back.wait()
        yield data[CHUNK_BYTES:]

    uploading = asyncio.ensure_future(upload(coordinator.chunks, halting()))
    await first_half_sent.wait()
    await bus.stop_server()
    await bus.start_server()
    server_is_back.set()
    blob = await soon(uploading)
    assert await read_range(coordinator.chunks, blob.root, 0, len(data)) == data


async def test_a_full_store_says_so(nats_bus: NatsBus) -> None:
    """With what to do; what is stored stays readable."""
    link = await nats_bus.coordinator_link()
    await streams.prepare_streams(link, streams.StreamSettings(blobs_max_bytes=CHUNK_BYTES))
    store = JetStreamChunks(link)
    await store.put(f"chunk.{_DIGEST}", b"x" * 1000)
    with pytest.raises(LimitExceededError, match="raise the server's max_file"):
        await store.put("chunk." + "cd" * 32, b"y" * CHUNK_BYTES)
    assert await store.get(f"chunk.{_DIGEST}") == b"x" * 1000

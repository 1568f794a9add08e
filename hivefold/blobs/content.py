"""Content of any size in and out of a ChunkStore, verified, in constant memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any

from hivefold.blobs.manifest import (
    ChunkSpan,
    Manifest,
    join_parts,
    parse_part,
    part_count,
    part_key,
)
from hivefold.blobs.port import ChunkStore
from hivefold.blobs.window import in_order
from hivefold.errors import DataRefusedError, InvalidRequestError, LimitExceededError, Reason
from hivefold.ids import DIGEST_RULE, is_digest
from hivefold.limits import BLOB_BYTES, BLOB_WINDOW, CHUNK_BYTES
from hivefold.v1.blob_pb2 import BlobManifest, BlobRef


async def upload(store: ChunkStore, pieces: AsyncIterator[bytes], *, size_bytes: int | None = None) -> BlobRef:
    """Stores content given in pieces of any size; at most BLOB_WINDOW chunks are under way.

    Raises DataRefusedError when it does not have the size that was announced, LimitExceededError
    when it is too large or the store is full, BrokerUnavailableError.
    """
    limit = BLOB_BYTES if size_bytes is None else size_bytes
    digests = bytearray()
    total = 0

    async def puts() -> AsyncGenerator[Coroutine[Any, Any, bytes], None]:
        nonlocal total
        async for chunk in _chunks(pieces):
            total += len(chunk)
            if total > limit:
                raise _too_long(size_bytes)
            yield _put_chunk(store, chunk)

    async with aclosing(in_order(puts(), BLOB_WINDOW)) as stored:
        async for digest in stored:
            digests += digest
    if size_bytes is not None and total != size_bytes:
        raise DataRefusedError(f"{total} bytes came where {size_bytes} were announced; send the whole content")
    return await put_manifest(store, Manifest(total, CHUNK_BYTES, bytes(digests)))


async def upload_bytes(store: ChunkStore, data: bytes) -> BlobRef:
    """Stores content that is in memory. Raises as upload does."""

    async def pieces() -> AsyncIterator[bytes]:
        yield data

    return await upload(store, pieces(), size_bytes=len(data))


async def put_manifest(store: ChunkStore, manifest: Manifest) -> BlobRef:
    """Stores a manifest. Its first part goes last: where that is, all is. Raises as upload does."""
    root = manifest.root
    first, *rest = manifest.parts()
    for number in range(len(rest), 0, -1):
        await store.put(part_key(root, number), rest[number - 1])
    await store.put(part_key(root, 0), first)
    return BlobRef(root=root, size_bytes=manifest.size_bytes)


async def get_manifest(store: ChunkStore, root: str) -> Manifest:
    """The manifest under a root, verified against it.

    Raises NotFoundError, DataRefusedError (DIGEST_MISMATCH), InvalidRequestError, BrokerUnavailableError.
    """
    if not is_digest(root):
        raise InvalidRequestError(f"{root[:80]!r} is not a root digest; it has {DIGEST_RULE}")
    first = parse_part(root, await store.get(part_key(root, 0)))

    async def gets() -> AsyncGenerator[Coroutine[Any, Any, BlobManifest], None]:
        for number in range(1, part_count(first)):
            yield _get_part(store, root, number)

    async with aclosing(in_order(gets(), BLOB_WINDOW)) as rest:
        return await asyncio.to_thread(join_parts, root, [first, *[part async for part in rest]])


async def has(store: ChunkStore, root: str) -> bool:
    """Whether content is stored, by its manifest. Raises BrokerUnavailableError."""
    return is_digest(root) and await store.has(part_key(root, 0))


async def stream_range(store: ChunkStore, manifest: Manifest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
    """Yields the bytes [offset, offset + length) in order, each verified before it is handed out.

    Raises InvalidRequestError outside the content, NotFoundError or DataRefusedError
    (DIGEST_MISMATCH, naming the chunk), BrokerUnavailableError.
    """

    async def gets() -> AsyncGenerator[Coroutine[Any, Any, bytes], None]:
        for span in manifest.spans(offset, length):
            yield _get_span(store, manifest, span)

    async with aclosing(in_order(gets(), BLOB_WINDOW)) as pieces:
        async for piece in pieces:
            yield piece


async def read_range(
    store: ChunkStore, root: str, offset: int, length: int, *, manifest: Manifest | None = None
) -> bytes:
    """The bytes [offset, offset + length), verified. Raises as stream_range does.

    `manifest` spares reading it again.
    """
    known = manifest or await get_manifest(store, root)
    return b"".join([piece async for piece in stream_range(store, known, offset, length)])


async def read_into(store: ChunkStore, manifest: Manifest, offset: int, target: memoryview) -> None:
    """Fills `target` with the bytes from `offset` on, verified. Raises as stream_range does; then `target` is void.

    Spares large ranges the memory that joining them takes.
    """
    filled = 0
    async with aclosing(stream_range(store, manifest, offset, len(target))) as pieces:
        async for piece in pieces:
            target[filled : filled + len(piece)] = piece
            filled += len(piece)


async def read_all(store: ChunkStore, root: str) -> AsyncGenerator[bytes, None]:
    """Yields the whole content in order, verified. Raises as stream_range does."""
    manifest = await get_manifest(store, root)
    async with aclosing(stream_range(store, manifest, 0, manifest.size_bytes)) as pieces:
        async for piece in pieces:
            yield piece


async def _chunks(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in chunks of CHUNK_BYTES; the last may be shorter."""
    waiting = bytearray()
    async for piece in pieces:
        if not waiting and len(piece) == CHUNK_BYTES:
            yield piece
            continue
        view = memoryview(piece)
        while len(waiting) + len(view) >= CHUNK_BYTES:
            room = CHUNK_BYTES - len(waiting)
            yield bytes(waiting + view[:room]) if waiting else bytes(view[:room])
            waiting.clear()
            view = view[room:]
        waiting += view
    if waiting:
        yield bytes(waiting)


async def _put_chunk(store: ChunkStore, chunk: bytes) -> bytes:
    digest = await asyncio.to_thread(_sha256, chunk)
    await store.put(f"chunk.{digest.hex()}", chunk)
    return digest


async def _get_part(store: ChunkStore, root: str, number: int) -> BlobManifest:
    return parse_part(root, await store.get(part_key(root, number)))


async def _get_span(store: ChunkStore, manifest: Manifest, span: ChunkSpan) -> bytes:
    data = await store.get(manifest.chunk_key(span.index))
    await asyncio.to_thread(manifest.check, span.index, data)
    return data if span.stop - span.start == len(data) else data[span.start : span.stop]


def _sha256(data: bytes) -> bytes:
    # SHA-256 lets other threads run.
    return hashlib.sha256(data).digest()


def _too_long(size_bytes: int | None) -> DataRefusedError | LimitExceededError:
    if size_bytes is None:
        return LimitExceededError(f"the content is too large; the limit is {BLOB_BYTES} bytes")
    return DataRefusedError(
        f"more than the announced {size_bytes} bytes came; announce the right size", reason=Reason.DATA_INVALID
    )

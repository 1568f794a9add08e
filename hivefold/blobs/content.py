"""Content of any size in and out of a ChunkStore, verified, in constant memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
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
from hivefold.blobs.sealing import DataKey, erased
from hivefold.blobs.window import in_order
from hivefold.errors import DataRefusedError, InvalidRequestError, LimitExceededError, Reason
from hivefold.ids import DIGEST_RULE, is_digest
from hivefold.limits import BLOB_BYTES, BLOB_WINDOW, CHUNK_BYTES, PLAIN_CHUNK_BYTES
from hivefold.v1.blob_pb2 import BlobManifest, BlobRef


async def upload(
    store: ChunkStore, pieces: AsyncIterator[bytes], *, size_bytes: int | None = None, key: DataKey | None = None
) -> BlobRef:
    """Stores content given in pieces of any size, sealed with `key`; at most BLOB_WINDOW chunks are under way.

    Raises DataRefusedError when it does not have the size that was announced, LimitExceededError
    when it is too large or the store is full, BrokerUnavailableError.
    """
    limit = BLOB_BYTES if size_bytes is None else size_bytes
    chunk_bytes = CHUNK_BYTES if key else PLAIN_CHUNK_BYTES
    digests = bytearray()
    total = 0

    async def puts() -> AsyncGenerator[Coroutine[Any, Any, bytes], None]:
        nonlocal total
        async for chunk in _chunks(pieces, chunk_bytes):
            total += len(chunk)
            if total > limit:
                raise _too_long(size_bytes)
            yield _put_chunk(store, -(-total // chunk_bytes) - 1, chunk, key)

    async with aclosing(in_order(puts(), BLOB_WINDOW)) as stored:
        async for digest in stored:
            digests += digest
    if size_bytes is not None and total != size_bytes:
        raise DataRefusedError(f"{total} bytes came where {size_bytes} were announced; send the whole content")
    return await put_manifest(store, Manifest(total, chunk_bytes, bytes(digests), key.key_id if key else ""))


async def upload_bytes(store: ChunkStore, data: bytes, key: DataKey | None = None) -> BlobRef:
    """Stores content that is in memory, sealed with `key`. Raises as upload does."""

    async def pieces() -> AsyncIterator[bytes]:
        yield data

    return await upload(store, pieces(), size_bytes=len(data), key=key)


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
    first = await _first_part(store, root)

    async def gets() -> AsyncGenerator[Coroutine[Any, Any, BlobManifest], None]:
        for number in range(1, part_count(first)):
            yield _get_part(store, root, number)

    async with aclosing(in_order(gets(), BLOB_WINDOW)) as rest:
        return await asyncio.to_thread(join_parts, root, [first, *[part async for part in rest]])


async def key_of(store: ChunkStore, root: str) -> str:
    """The key with which content is sealed, "" where it is not; looks at the manifest's first part alone.

    Raises as get_manifest does.
    """
    return (await _first_part(store, root)).key_id


async def has(store: ChunkStore, root: str) -> bool:
    """Whether content is stored, by its manifest. Raises BrokerUnavailableError."""
    return is_digest(root) and await store.has(part_key(root, 0))


async def stream_range(
    store: ChunkStore, manifest: Manifest, offset: int, length: int, key: DataKey | None = None
) -> AsyncGenerator[bytes, None]:
    """Yields the bytes [offset, offset + length) in order, each verified and opened before it is handed out.

    Raises InvalidRequestError outside the content, NotFoundError or DataRefusedError
    (DIGEST_MISMATCH, naming the chunk; JOB_ERASED without the key that it takes), BrokerUnavailableError.
    """
    _require_key(manifest, key)

    async def gets() -> AsyncGenerator[Coroutine[Any, Any, bytes], None]:
        for span in manifest.spans(offset, length):
            yield _get_span(store, manifest, span, key)

    async with aclosing(in_order(gets(), BLOB_WINDOW)) as pieces:
        async for piece in pieces:
            yield piece


async def read_range(
    store: ChunkStore,
    root: str,
    offset: int,
    length: int,
    *,
    manifest: Manifest | None = None,
    key: DataKey | None = None,
) -> bytes:
    """The bytes [offset, offset + length), verified. Raises as stream_range does.

    `manifest` spares reading it again.
    """
    known = manifest or await get_manifest(store, root)
    return b"".join([piece async for piece in stream_range(store, known, offset, length, key)])


async def read_into(
    store: ChunkStore, manifest: Manifest, offset: int, target: memoryview, key: DataKey | None = None
) -> None:
    """Fills `target` with the bytes from `offset` on, verified. Raises as stream_range does; then `target` is void.

    Spares large ranges the memory that joining them takes.
    """
    _require_key(manifest, key)

    async def gets() -> AsyncGenerator[Coroutine[Any, Any, None], None]:
        filled = 0
        for span in manifest.spans(offset, len(target)):
            size = span.stop - span.start
            yield _get_span_into(store, manifest, span, target[filled : filled + size], key)
            filled += size

    async with aclosing(in_order(gets(), BLOB_WINDOW)) as filling:
        async for _ in filling:
            pass


async def read_all(
    store: ChunkStore, root: str, key_for: Callable[[str], Awaitable[DataKey]] | None = None
) -> AsyncGenerator[bytes, None]:
    """Yields the whole content in order, verified; `key_for` gives the key by its name. Raises as stream_range does."""
    manifest = await get_manifest(store, root)
    key = await key_for(manifest.key_id) if manifest.key_id and key_for else None
    async with aclosing(stream_range(store, manifest, 0, manifest.size_bytes, key)) as pieces:
        async for piece in pieces:
            yield piece


async def _chunks(pieces: AsyncIterator[bytes], chunk_bytes: int) -> AsyncIterator[bytes]:
    """The same bytes in chunks of chunk_bytes; the last may be shorter."""
    waiting = bytearray()
    async for piece in pieces:
        if not waiting and len(piece) == chunk_bytes:
            yield piece
            continue
        view = memoryview(piece)
        while len(waiting) + len(view) >= chunk_bytes:
            room = chunk_bytes - len(waiting)
            yield bytes(waiting + view[:room]) if waiting else bytes(view[:room])
            waiting.clear()
            view = view[room:]
        waiting += view
    if waiting:
        yield bytes(waiting)


async def _put_chunk(store: ChunkStore, index: int, chunk: bytes, key: DataKey | None) -> bytes:
    stored, digest = await asyncio.to_thread(_prepared, index, chunk, key)
    await store.put(f"chunk.{digest.hex()}", stored)
    return digest


async def _first_part(store: ChunkStore, root: str) -> BlobManifest:
    if not is_digest(root):
        raise InvalidRequestError(f"{root[:80]!r} is not a root digest; it has {DIGEST_RULE}")
    return parse_part(root, await store.get(part_key(root, 0)))


async def _get_part(store: ChunkStore, root: str, number: int) -> BlobManifest:
    return parse_part(root, await store.get(part_key(root, number)))


async def _get_span(store: ChunkStore, manifest: Manifest, span: ChunkSpan, key: DataKey | None) -> bytes:
    data = await store.get(manifest.chunk_key(span.index))
    data = await asyncio.to_thread(_opened, manifest, span.index, data, key)
    return data if span.stop - span.start == len(data) else data[span.start : span.stop]


async def _get_span_into(
    store: ChunkStore, manifest: Manifest, span: ChunkSpan, target: memoryview, key: DataKey | None
) -> None:
    data = await store.get(manifest.chunk_key(span.index))
    await asyncio.to_thread(_open_into, manifest, span, data, target, key)


def _prepared(index: int, chunk: bytes, key: DataKey | None) -> tuple[bytes, bytes]:
    """A chunk as it is stored, and its digest. SHA-256 and AES let other threads run."""
    stored = key.seal_chunk(index, chunk) if key else chunk
    return stored, hashlib.sha256(stored).digest()


def _opened(manifest: Manifest, index: int, data: bytes, key: DataKey | None) -> bytes:
    manifest.check(index, data)
    return key.open_chunk(index, data) if key and manifest.key_id else data


def _open_into(manifest: Manifest, span: ChunkSpan, data: bytes, target: memoryview, key: DataKey | None) -> None:
    if key and manifest.key_id and len(target) == manifest.chunk_length(span.index):
        manifest.check(span.index, data)
        key.open_chunk_into(span.index, data, target)
    else:
        target[:] = memoryview(_opened(manifest, span.index, data, key))[span.start : span.stop]


def _require_key(manifest: Manifest, key: DataKey | None) -> None:
    if manifest.key_id and (key is None or key.key_id != manifest.key_id):
        raise erased(manifest.key_id)


def _too_long(size_bytes: int | None) -> DataRefusedError | LimitExceededError:
    if size_bytes is None:
        return LimitExceededError(f"the content is too large; the limit is {BLOB_BYTES} bytes")
    return DataRefusedError(
        f"more than the announced {size_bytes} bytes came; announce the right size", reason=Reason.DATA_INVALID
    )

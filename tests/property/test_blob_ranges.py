"""Laws of content: any range of any content comes back, verified, however it went in."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivefold.blobs.content import get_manifest, put_manifest, read_range
from hivefold.blobs.files import verified_file_range
from hivefold.blobs.manifest import Manifest
from hivefold.blobs.memory import MemoryChunks
from hivefold.errors import DataRefusedError


@st.composite
def _contents(draw: st.DrawFn) -> tuple[bytes, int, int, int]:
    """Content, chunk size, and a range within it."""
    data = draw(st.binary(max_size=200))
    chunk_size = draw(st.integers(1, 64))
    offset = draw(st.integers(0, len(data)))
    return data, chunk_size, offset, draw(st.integers(0, len(data) - offset))


def _cut(data: bytes, chunk_size: int) -> list[bytes]:
    return [data[start : start + chunk_size] for start in range(0, len(data), chunk_size)]


def _manifest(data: bytes, chunk_size: int) -> Manifest:
    digests = b"".join(hashlib.sha256(chunk).digest() for chunk in _cut(data, chunk_size))
    return Manifest(len(data), chunk_size, digests)


async def _stored(data: bytes, chunk_size: int) -> tuple[MemoryChunks, str]:
    store, manifest = MemoryChunks(), _manifest(data, chunk_size)
    for index, chunk in enumerate(_cut(data, chunk_size)):
        await store.put(manifest.chunk_key(index), chunk)
    return store, (await put_manifest(store, manifest)).root


@given(_contents())
def test_spans_cover_a_range_exactly_once(content: tuple[bytes, int, int, int]) -> None:
    """Joined in order they are the range; no span is empty or beyond its chunk."""
    data, chunk_size, offset, length = content
    chunks = _cut(data, chunk_size)
    spans = list(_manifest(data, chunk_size).spans(offset, length))
    assert b"".join(chunks[span.index][span.start : span.stop] for span in spans) == data[offset : offset + length]
    assert all(span.start < span.stop <= len(chunks[span.index]) for span in spans)


@given(_contents())
def test_a_range_of_stored_content_is_what_it_was(content: tuple[bytes, int, int, int]) -> None:
    """For every chunk size and every range."""
    data, chunk_size, offset, length = content

    async def found() -> bytes:
        store, root = await _stored(data, chunk_size)
        return await read_range(store, root, offset, length)

    assert asyncio.run(found()) == data[offset : offset + length]


@given(_contents())
def test_a_range_of_a_file_is_what_it_was(content: tuple[bytes, int, int, int]) -> None:
    """As for stored content."""
    data, chunk_size, offset, length = content
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(data)
        found = verified_file_range(file.name, _manifest(data, chunk_size), offset, length)
    assert bytes(found) == data[offset : offset + length]


@given(_contents(), st.data())
def test_an_altered_byte_is_never_handed_out(content: tuple[bytes, int, int, int], draws: st.DataObject) -> None:
    """Whichever byte of whichever stored message: the whole content is then refused."""
    data, chunk_size, _, _ = content

    async def read() -> bytes:
        store, root = await _stored(data, chunk_size)
        key = draws.draw(st.sampled_from(sorted(store.chunks)))
        at = draws.draw(st.integers(0, len(store.chunks[key]) - 1))
        altered = bytearray(store.chunks[key])
        altered[at] ^= draws.draw(st.integers(1, 255))
        store.chunks[key] = bytes(altered)
        manifest = await get_manifest(store, root)
        if key.startswith("manifest"):
            # A changed encoding that says the same is the same manifest.
            assert manifest.root == root
            raise DataRefusedError("unchanged in effect")
        return await read_range(store, root, 0, len(data), manifest=manifest)

    if data:
        with pytest.raises(DataRefusedError):
            asyncio.run(read())


@given(_contents())
def test_the_wire_form_is_faithful(content: tuple[bytes, int, int, int]) -> None:
    """To the message and back: the same manifest, the same root."""
    manifest = _manifest(content[0], content[1])
    assert Manifest.from_wire(manifest.to_wire()) == manifest

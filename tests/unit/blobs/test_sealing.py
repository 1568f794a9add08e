"""Sealing: what a data key promises, whatever is sealed with it."""

from __future__ import annotations

import hashlib

import pytest

from hivefold.blobs.content import get_manifest, key_of, read_all, read_into, read_range, upload_bytes
from hivefold.blobs.keys import MemoryKeys
from hivefold.blobs.memory import MemoryChunks
from hivefold.blobs.sealing import SEAL_BYTES, DataKey, data_key_id, is_data_key_id, job_key_id
from hivefold.entropy import SeededEntropy
from hivefold.errors import DataRefusedError, Reason
from hivefold.limits import CHUNK_BYTES

_KEY = DataKey("d" + "0" * 32, b"k" * 32)
_OTHER = DataKey("d" + "1" * 32, b"o" * 32)
_DATA = bytes(range(256)) * (2 * CHUNK_BYTES // 256) + b"the rest"


def test_what_is_sealed_opens_with_its_key_and_in_its_place_alone() -> None:
    """Another key, another chunk's place, or one bit changed: refused."""
    sealed = _KEY.seal_chunk(3, b"some rows")
    assert _KEY.open_chunk(3, sealed) == b"some rows"
    assert len(sealed) == len(b"some rows") + SEAL_BYTES
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for key, place, data in ((_OTHER, 3, sealed), (_KEY, 4, sealed), (_KEY, 3, changed), (_KEY, 3, b"short")):
        with pytest.raises(DataRefusedError) as refusal:
            key.open_chunk(place, data)
        assert refusal.value.reason is Reason.DIGEST_MISMATCH
    with pytest.raises(DataRefusedError):
        _KEY.open_inline(_KEY.seal_chunk(0, b"some rows"))


def test_no_nonce_is_used_for_two_messages() -> None:
    """GCM with a repeated nonce gives its key away: another message or place has another nonce, a repeat is equal."""
    messages = [_KEY.seal_chunk(place, bytes([byte])) for place in range(20) for byte in range(20)]
    messages += [_KEY.seal_inline(bytes([byte])) for byte in range(20)]
    assert len({message[:12] for message in messages}) == len(messages)
    assert _KEY.seal_chunk(1, b"same") == _KEY.seal_chunk(1, b"same")


def test_a_key_does_not_show_itself() -> None:
    """Neither in a log line nor in a traceback."""
    assert repr(_KEY) == f"DataKey('{_KEY.key_id}')"
    assert "kkkk" not in f"{_KEY} {_KEY!r}"


def test_the_format_stays_as_it_is() -> None:
    """What was sealed once opens for ever; the page of the format says how."""
    assert _KEY.seal_inline(b"hivefold").hex() == _SEALED
    assert _KEY.digest(hashlib.sha256(b"hivefold").hexdigest()) == _DIGEST


async def test_stored_content_shows_nothing() -> None:
    """Chunks are sealed, digests are of what is sealed, the root depends on the key: a guess cannot be checked."""
    store = MemoryChunks()
    blob = await upload_bytes(store, _DATA, _KEY)
    everything = b"".join(key.encode() + data for key, data in store.chunks.items())
    for plain in (_DATA[:64], hashlib.sha256(_DATA[:CHUNK_BYTES]).digest(), hashlib.sha256(_DATA).digest()):
        assert plain not in everything
        assert plain.hex().encode() not in everything
    assert blob.size_bytes == len(_DATA)
    assert blob.root not in {(await upload_bytes(MemoryChunks(), _DATA, key)).root for key in (_OTHER, None)}
    assert await upload_bytes(store, _DATA, _KEY) == blob
    assert await key_of(store, blob.root) == _KEY.key_id


async def test_sealed_content_is_read_with_its_key_alone() -> None:
    """In ranges, into memory, as a whole; without the key it is refused as erased."""
    store = MemoryChunks()
    blob = await upload_bytes(store, _DATA, _KEY)
    manifest = await get_manifest(store, blob.root)
    start, size = CHUNK_BYTES - 5, CHUNK_BYTES + 10
    assert await read_range(store, blob.root, start, size, key=_KEY) == _DATA[start : start + size]
    room = bytearray(size)
    await read_into(store, manifest, start, memoryview(room), _KEY)
    assert room == _DATA[start : start + size]
    keys = MemoryKeys(SeededEntropy(1))
    keys.secrets[_KEY.key_id] = _KEY.secret
    assert b"".join([piece async for piece in read_all(store, blob.root, keys.get)]) == _DATA
    await keys.shred(_KEY.key_id)
    for reading in (
        read_range(store, blob.root, 0, 1),
        read_range(store, blob.root, 0, 1, key=_OTHER),
        anext(read_all(store, blob.root, keys.get)),
    ):
        with pytest.raises(DataRefusedError, match=_KEY.key_id) as refusal:
            await reading
        assert refusal.value.reason is Reason.JOB_ERASED


def test_the_key_of_an_upload_is_never_that_of_a_job() -> None:
    """A client that names keys cannot name those of outputs."""
    assert is_data_key_id(data_key_id("request"))
    assert data_key_id("request") == data_key_id("request") != data_key_id("another")
    for name in (job_key_id("j0001"), "", "d", "d" + "G" * 32, "j" + "0" * 32, "d" + "0" * 31):
        assert not is_data_key_id(name)


_SEALED = "29df761b7a62a7bdae73a49b73c17831ea7f2770389d805fc1137fb0a47948fde4efb614"
_DIGEST = "e54b361c698305e320a2c934f8757bf5334dc9601e54d6bdb3da4afeda592e2d"

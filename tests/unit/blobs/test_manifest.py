"""The manifest: roots as documented, malformed ones refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from hivefold.blobs.manifest import Manifest
from hivefold.errors import DataRefusedError, InvalidRequestError, LimitExceededError
from hivefold.limits import BLOB_BYTES, CHUNK_BYTES, PLAIN_CHUNK_BYTES
from hivefold.v1.blob_pb2 import BlobManifest

_FORMAT = Path(__file__).parents[3] / "docs" / "blob-format.md"


def _of(*chunks: bytes, chunk_size: int) -> Manifest:
    digests = b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)
    return Manifest(sum(map(len, chunks)), chunk_size, digests)


def test_roots_are_as_they_always_were() -> None:
    """Stored content stays readable for ever: these values never change."""
    assert _of(b"hell", b"o wo", b"rld", chunk_size=4).root == (
        "35975eb8e453b0323e13ac9649159f3789420de21a8808d62d8b34589a8e1151"
    )
    assert _of(chunk_size=524_288).root == "c92095e5b39c5a41790f8723814f7dced668c41abdf7b16b2153807064efb348"
    assert _of(chunk_size=PLAIN_CHUNK_BYTES).root in _FORMAT.read_text(encoding="utf-8")


def test_every_field_changes_the_root() -> None:
    """Size, chunk size and digests are all committed to."""
    digest = hashlib.sha256(b"abc").digest()
    roots = {
        Manifest(3, 4, digest).root,
        Manifest(2, 4, digest).root,
        Manifest(3, 5, digest).root,
        Manifest(3, 4, bytes(32)).root,
    }
    assert len(roots) == 4


@pytest.mark.parametrize(
    ("size", "chunk_size", "digest_bytes"),
    [(1, 0, 32), (1, CHUNK_BYTES + 1, 32), (1, 4, 0), (1, 4, 64), (5, 4, 32), (0, 4, 32), (1, 4, 31), (-1, 4, 0)],
)
def test_a_manifest_that_contradicts_itself_is_refused(size: int, chunk_size: int, digest_bytes: int) -> None:
    """Sizes and number of digests have to fit."""
    with pytest.raises(DataRefusedError, match="not a blob manifest"):
        Manifest(size, chunk_size, bytes(digest_bytes))


def test_too_large_content_is_refused() -> None:
    """Before anything is computed from its size."""
    with pytest.raises(LimitExceededError):
        Manifest.from_wire(BlobManifest(size_bytes=BLOB_BYTES + 1, chunk_size_bytes=1))


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 12), (11, 1), (3, -1)])
def test_spans_outside_the_content_are_refused(offset: int, length: int) -> None:
    """Instead of fewer bytes."""
    with pytest.raises(InvalidRequestError):
        list(_of(b"hell", b"o wo", b"rld", chunk_size=4).spans(offset, length))

"""What content consists of: sizes and chunk digests under one root (docs/blob-format.md). Pure."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from hivefold.blobs.sealing import SEAL_BYTES, erased, file_digest
from hivefold.errors import DataRefusedError, InvalidRequestError, LimitExceededError, Reason
from hivefold.ids import Digest
from hivefold.limits import BLOB_BYTES, CHUNK_BYTES, KEY_ID_BYTES, MANIFEST_PART_BYTES
from hivefold.v1.blob_pb2 import BlobManifest, BlobRef

DIGEST_BYTES: Final = 32
_DOMAIN: Final = b"hivefold.blob.v1\n"
_SEALED_DOMAIN: Final = b"hivefold.sealed.v1\n"
_SIZES: Final = struct.Struct(">QI")
_PART_OVERHEAD: Final = 64
"""More than protobuf adds to a part's digests."""
_PART_DIGEST_BYTES: Final = (MANIFEST_PART_BYTES - _PART_OVERHEAD) // DIGEST_BYTES * DIGEST_BYTES


@dataclass(frozen=True, slots=True)
class ChunkSpan:
    """The part of one chunk that a range covers: bytes [start, stop) of chunk `index`."""

    index: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """Size of the content, size of its chunks, SHA-256 of each chunk as it is stored, concatenated. Consistent by
    construction. `key_id` names the key with which the chunks are sealed; without one they are stored as they are.

    Raises DataRefusedError when the sizes and the number of digests do not fit, LimitExceededError
    above BLOB_BYTES.
    """

    size_bytes: int
    chunk_size_bytes: int
    chunk_digests: bytes
    key_id: str = ""

    def __post_init__(self) -> None:
        if self.size_bytes > BLOB_BYTES:
            raise LimitExceededError(f"content of {self.size_bytes} bytes is too large; the limit is {BLOB_BYTES}")
        if self.size_bytes < 0 or not 1 <= self.chunk_size_bytes <= CHUNK_BYTES:
            raise _malformed(f"chunk size {self.chunk_size_bytes}, not 1 to {CHUNK_BYTES}")
        if len(self.chunk_digests) != self.chunk_count * DIGEST_BYTES:
            raise _malformed(f"{len(self.chunk_digests)} bytes of digests for {self.chunk_count} chunks")
        if len(self.key_id) > KEY_ID_BYTES or not self.key_id.isascii():
            raise _malformed(f"{self.key_id[:80]!r} names no key")

    @property
    def chunk_count(self) -> int:
        """Number of chunks."""
        return -(-self.size_bytes // self.chunk_size_bytes)

    @property
    def root(self) -> Digest:
        """The root digest."""
        key_id = self.key_id.encode()
        state = hashlib.sha256(_SEALED_DOMAIN + bytes([len(key_id)]) + key_id if key_id else _DOMAIN)
        state.update(_SIZES.pack(self.size_bytes, self.chunk_size_bytes))
        state.update(self.chunk_digests)
        return Digest(state.hexdigest())

    @property
    def ref(self) -> BlobRef:
        """The reference to the content."""
        return BlobRef(root=self.root, size_bytes=self.size_bytes)

    def digest(self, index: int) -> bytes:
        """SHA-256 of a chunk."""
        return self.chunk_digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]

    def chunk_key(self, index: int) -> str:
        """The key of a chunk in a ChunkStore."""
        return f"chunk.{self.digest(index).hex()}"

    def chunk_length(self, index: int) -> int:
        """Size of a chunk in bytes; only the last one may be shorter."""
        return min(self.chunk_size_bytes, self.size_bytes - index * self.chunk_size_bytes)

    def stored_length(self, index: int) -> int:
        """Size of a chunk as it is stored, in bytes."""
        return self.chunk_length(index) + (SEAL_BYTES if self.key_id else 0)

    def spans(self, offset: int, length: int) -> Iterator[ChunkSpan]:
        """The chunks behind a range, in order. Raises InvalidRequestError outside the content."""
        if offset < 0 or length < 0 or offset + length > self.size_bytes:
            raise InvalidRequestError(
                f"bytes {offset} to {offset + length} are not within the content; it has {self.size_bytes}"
            )
        end = offset + length
        while offset < end:
            index, start = divmod(offset, self.chunk_size_bytes)
            stop = min(self.chunk_length(index), start + end - offset)
            yield ChunkSpan(index, start, stop)
            offset += stop - start

    def check(self, index: int, data: bytes | memoryview) -> None:
        """Raises DataRefusedError, naming the chunk, unless `data` is the whole chunk as it was stored."""
        if len(data) != self.stored_length(index) or hashlib.sha256(data).digest() != self.digest(index):
            raise self._mismatch(index)

    def keyed(self, key_id: str, secret: bytes) -> Manifest:
        """The manifest of the same content, which stays where it is, with digests that are void without the key."""
        digests = [file_digest(secret, self.digest(index)) for index in range(self.chunk_count)]
        return Manifest(self.size_bytes, self.chunk_size_bytes, b"".join(digests), key_id)

    def check_file(self, index: int, data: bytes | memoryview, secret: bytes = b"") -> None:
        """As check, of content that stays where it is; `secret` is the key that the manifest names.

        Raises DataRefusedError (JOB_ERASED) too, where it takes a key and there is none.
        """
        if self.key_id and not secret:
            raise erased(self.key_id)
        plain = hashlib.sha256(data).digest()
        found = file_digest(secret, plain) if self.key_id else plain
        if len(data) != self.chunk_length(index) or found != self.digest(index):
            raise self._mismatch(index)

    def _mismatch(self, index: int) -> DataRefusedError:
        return DataRefusedError(
            f"chunk {index} of {self.root} is not what its digest says; restore the content and try again",
            reason=Reason.DIGEST_MISMATCH,
            metadata={"root": self.root, "chunk": str(index), "digest": self.digest(index).hex()},
        )

    def to_wire(self) -> BlobManifest:
        """The manifest as a message."""
        return self._wire(self.chunk_digests)

    @staticmethod
    def from_wire(message: BlobManifest) -> Manifest:
        """The manifest out of a message. Raises as the constructor does."""
        return Manifest(message.size_bytes, message.chunk_size_bytes, message.chunk_digests, message.key_id)

    def parts(self) -> list[bytes]:
        """The manifest cut into messages that a ChunkStore takes; at least one."""
        step = _PART_DIGEST_BYTES
        cuts = range(0, max(1, len(self.chunk_digests)), step)
        return [self._wire(self.chunk_digests[cut : cut + step]).SerializeToString() for cut in cuts]

    def _wire(self, digests: bytes) -> BlobManifest:
        return BlobManifest(
            size_bytes=self.size_bytes,
            chunk_size_bytes=self.chunk_size_bytes,
            chunk_digests=digests,
            key_id=self.key_id,
        )


def part_key(root: str, part: int) -> str:
    """The key of a manifest's part in a ChunkStore."""
    return f"manifest.{root}.{part}"


def parse_part(root: str, data: bytes) -> BlobManifest:
    """One part of a manifest. Raises DataRefusedError."""
    try:
        return BlobManifest.FromString(data)
    except DecodeError:
        raise _malformed(f"a part of the manifest of {root} does not parse") from None


def part_count(first: BlobManifest) -> int:
    """How many parts the manifest has whose first part this is. Raises DataRefusedError."""
    if not 1 <= first.chunk_size_bytes <= CHUNK_BYTES or first.size_bytes > BLOB_BYTES:
        raise _malformed(f"size {first.size_bytes} in chunks of {first.chunk_size_bytes}")
    chunks = -(-first.size_bytes // first.chunk_size_bytes)
    return max(1, -(-chunks * DIGEST_BYTES // _PART_DIGEST_BYTES))


def join_parts(root: str, parts: list[BlobManifest]) -> Manifest:
    """The manifest out of all its parts, verified. Raises DataRefusedError (DIGEST_MISMATCH)."""
    first = parts[0]
    digests = b"".join(part.chunk_digests for part in parts)
    manifest = Manifest(first.size_bytes, first.chunk_size_bytes, digests, first.key_id)
    if manifest.root != root:
        raise DataRefusedError(
            f"the manifest of {root} is not what its digest says; upload the content again",
            reason=Reason.DIGEST_MISMATCH,
            metadata={"root": root},
        )
    return manifest


def _malformed(what: str) -> DataRefusedError:
    return DataRefusedError(f"this is not a blob manifest: {what}; make it anew", reason=Reason.DIGEST_MISMATCH)

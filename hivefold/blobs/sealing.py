"""Data keys: what they seal is void once they are gone (docs/blob-format.md, ADR 0013)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final, TypeVar

from hivefold.errors import DataRefusedError, Reason
from hivefold.ids import Digest, JobId

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
SEAL_BYTES: Final = _NONCE_BYTES + _TAG_BYTES
"""What sealing adds to a message."""
_INLINE: Final = b"inline"
_Answer = TypeVar("_Answer")


class DataKey:
    """A 256-bit key and the name under which it is kept. Its repr shows the name alone.

    Seals with AES-256-GCM. The nonce is derived from the message and its place (a synthetic one, as in RFC 5297):
    the same message in the same place gives the same bytes, and one key may seal any number of contents, attempt
    after attempt, without ever using a nonce for two messages.
    """

    __slots__ = ("_cipher", "_digest_key", "_nonce_key", "key_id", "secret")

    def __init__(self, key_id: str, secret: bytes) -> None:
        # Large, and a fleet at rest needs none of it.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self.key_id = key_id
        self.secret = secret
        self._cipher = AESGCM(_derived(secret, b"encryption"))
        self._nonce_key = _derived(secret, b"nonce")
        self._digest_key = _derived(secret, b"digest")

    def __repr__(self) -> str:
        return f"DataKey({self.key_id!r})"

    def seal_chunk(self, index: int, data: bytes | memoryview) -> bytes:
        """A sealed chunk: SEAL_BYTES more than `data`."""
        return self._seal(_place(index), data)

    def open_chunk(self, index: int, sealed: bytes) -> bytes:
        """The chunk that was sealed at `index`. Raises DataRefusedError (DIGEST_MISMATCH)."""
        return self._open(_place(index), sealed)

    def open_chunk_into(self, index: int, sealed: bytes, target: memoryview) -> None:
        """Opens a sealed chunk into memory of its size. Raises as open_chunk does; then `target` is void."""
        view = memoryview(sealed)
        nonce, rest, place = sealed[:_NONCE_BYTES], view[_NONCE_BYTES:], _place(index)
        self._opened(lambda: self._cipher.decrypt_into(nonce, rest, place, target), sealed)

    def seal_inline(self, data: bytes) -> bytes:
        """A sealed small output."""
        return self._seal(_INLINE, data)

    def open_inline(self, sealed: bytes) -> bytes:
        """A small output. Raises DataRefusedError (DIGEST_MISMATCH)."""
        return self._open(_INLINE, sealed)

    def digest(self, plain_digest: str) -> Digest:
        """What stands for content in records: equal for equal content of one key, and nothing without the key."""
        return Digest(hmac.digest(self._digest_key, bytes.fromhex(plain_digest), "sha256").hex())

    def _seal(self, place: bytes, data: bytes | memoryview) -> bytes:
        nonce = hmac.digest(self._nonce_key, place + hashlib.sha256(data).digest(), "sha256")[:_NONCE_BYTES]
        sealed = bytearray(len(data) + SEAL_BYTES)
        sealed[:_NONCE_BYTES] = nonce
        self._cipher.encrypt_into(nonce, data, place, memoryview(sealed)[_NONCE_BYTES:])
        return bytes(sealed)

    def _open(self, place: bytes, sealed: bytes) -> bytes:
        nonce, rest = sealed[:_NONCE_BYTES], memoryview(sealed)[_NONCE_BYTES:]
        return self._opened(lambda: self._cipher.decrypt(nonce, rest, place), sealed)

    def _opened(self, attempt: Callable[[], _Answer], sealed: bytes) -> _Answer:
        from cryptography.exceptions import InvalidTag

        try:
            if len(sealed) >= SEAL_BYTES:
                return attempt()
        except (InvalidTag, ValueError):
            pass
        raise DataRefusedError(
            f"sealed bytes do not open with key {self.key_id}: they were altered or belong elsewhere; "
            "submit the job again",
            reason=Reason.DIGEST_MISMATCH,
            metadata={"key": self.key_id},
        )


def data_key_id(request_id: str) -> str:
    """The key of what is uploaded under a request id: a repeat is sealed to the same bytes."""
    return "d" + hashlib.sha256(b"hivefold.upload.v1\n" + request_id.encode()).hexdigest()[:32]


def is_data_key_id(text: str) -> bool:
    """Whether `text` may name the key of an upload (and not that of a job)."""
    return len(text) == 33 and text[0] == "d" and all(letter in "0123456789abcdef" for letter in text[1:])


def job_key_id(job_id: JobId | str) -> str:
    """The key of a job's outputs."""
    return f"j.{job_id}"


def file_digest(secret: bytes, plain_digest: bytes) -> bytes:
    """What stands for a chunk of a file that stays where it is: nothing to who has not the key."""
    return hmac.digest(_derived(secret, b"file"), plain_digest, "sha256")


def erased(key_id: str) -> DataRefusedError:
    """What to say where a key is gone."""
    return DataRefusedError(
        f"the content is sealed with key {key_id}, which was erased or never given; upload the data again",
        reason=Reason.JOB_ERASED,
        metadata={"key": key_id},
    )


def _place(index: int) -> bytes:
    return b"chunk" + index.to_bytes(8, "big")


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return hmac.digest(secret, b"hivefold.seal.v1\n" + purpose, "sha256")

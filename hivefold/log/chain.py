"""The hash that links records: what docs/log-format.md says of it."""

from __future__ import annotations

import hashlib
import struct
from typing import Final

HASH_BYTES: Final = 32
GENESIS_HASH: Final = bytes(HASH_BYTES)
"""What record 1 carries as the hash of the record before."""
_DOMAIN: Final = b"hivefold-record-v1\0"
_START: Final = struct.Struct(f">{len(_DOMAIN)}sQHI")


def record_hash(sequence: int, subject: str, data: bytes) -> bytes:
    """SHA-256 over domain tag, sequence, lengths, subject and the stored bytes."""
    name = subject.encode()
    return hashlib.sha256(_START.pack(_DOMAIN, sequence, len(name), len(data)) + name + data).digest()

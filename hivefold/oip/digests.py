"""Digests of a request's tensors, as docs/inference-audit.md describes them. Pure."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Final, TypeAlias

from hivefold.oip.limits import DIGEST_HEADS
from hivefold.oip.tensors import Raw, WireTensor

SALT_BYTES: Final = 32
DIGEST_BYTES: Final = 32
NO_DIGEST: Final = bytes(DIGEST_BYTES)
"""Stands where there is nothing to digest."""
_DOMAIN: Final = b"hivefold-tensors-v1\0"
_NUMBER: Final = struct.Struct(">I")
_SIZE: Final = struct.Struct(">Q")
_JOINED_BYTES: Final = 16 * 1024
"""Below this a copy costs less than calls."""
_Described: TypeAlias = tuple[tuple[str, str, tuple[int, ...], int], ...]


class TensorDigester:
    """Digests sets of tensors under one salt. The order in which tensors are given does not matter."""

    def __init__(self, salt: bytes) -> None:
        self._start = _DOMAIN + salt
        self._plans: dict[_Described, tuple[tuple[bytes, int], ...]] = {}

    def digest(self, tensors: Sequence[WireTensor]) -> bytes:
        """SHA-256 of the domain, the salt, the number of tensors and each of them by name: 32 bytes."""
        described = tuple([(name, data_type, shape, len(data)) for name, data_type, shape, data in tensors])
        plan = self._plans.get(described) or self._plan(described)
        pieces: list[Raw] = [self._start]
        for head, index in plan:
            pieces += (head, tensors[index].data)
        if sum([len(piece) for piece in pieces]) <= _JOINED_BYTES:
            return hashlib.sha256(b"".join(pieces)).digest()
        found = hashlib.sha256()
        for piece in pieces:
            found.update(piece)
        return found.digest()

    def _plan(self, described: _Described) -> tuple[tuple[bytes, int], ...]:
        """What comes before each tensor's data, and which it is. Few are seen: each is kept."""
        if len(self._plans) >= DIGEST_HEADS:
            self._plans.clear()
        count = _NUMBER.pack(len(described))
        plan: list[tuple[bytes, int]] = []
        for index in sorted(range(len(described)), key=lambda index: described[index][0].encode()):
            plan.append((count + _head(*described[index]), index))
            count = b""
        found = self._plans[described] = tuple(plan)
        return found


def _head(name: str, data_type: str, shape: tuple[int, ...], size_bytes: int) -> bytes:
    texts = [_NUMBER.pack(len(text)) + text for text in (name.encode(), data_type.encode())]
    return b"".join([*texts, _NUMBER.pack(len(shape)), *map(_SIZE.pack, shape), _SIZE.pack(size_bytes)])

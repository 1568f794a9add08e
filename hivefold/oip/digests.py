"""Digests of a request's tensors, as docs/inference-audit.md describes them. Pure."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

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


class _Plan(NamedTuple):
    """What comes before each tensor's data, and which tensor it is; whether all of it is joined first."""

    parts: tuple[tuple[bytes, int], ...]
    joined: bool


class TensorDigester:
    """Digests sets of tensors under one salt. The order in which tensors are given does not matter."""

    def __init__(self, salt: bytes) -> None:
        self._start = _DOMAIN + salt
        self._plans: dict[_Described, _Plan] = {}

    def digest(self, tensors: Sequence[WireTensor | tuple[str, str, tuple[int, ...], Raw]]) -> bytes:
        """SHA-256 of the domain, the salt, the number of tensors and each of them by name: 32 bytes."""
        described = tuple([(name, data_type, shape, len(data)) for name, data_type, shape, data in tensors])
        plan = self._plans.get(described) or self._plan(described)
        pieces: list[Raw] = []
        for head, index in plan.parts:
            pieces += (head, tensors[index][3])
        if plan.joined:
            return hashlib.sha256(b"".join(pieces)).digest()
        found = hashlib.sha256()
        for piece in pieces:
            found.update(piece)
        return found.digest()

    def _plan(self, described: _Described) -> _Plan:
        """How tensors that are described so are digested. Few descriptions are seen: each is kept."""
        if len(self._plans) >= DIGEST_HEADS:
            self._plans.clear()
        before = self._start + _NUMBER.pack(len(described))
        parts: list[tuple[bytes, int]] = []
        for index in sorted(range(len(described)), key=lambda index: described[index][0].encode()):
            parts.append((before + _head(*described[index]), index))
            before = b""
        size = sum(len(head) for head, _ in parts) + sum(size_bytes for *_, size_bytes in described)
        found = self._plans[described] = _Plan(tuple(parts), size <= _JOINED_BYTES)
        return found


def _head(name: str, data_type: str, shape: tuple[int, ...], size_bytes: int) -> bytes:
    texts = [_NUMBER.pack(len(text)) + text for text in (name.encode(), data_type.encode())]
    return b"".join([*texts, _NUMBER.pack(len(shape)), *map(_SIZE.pack, shape), _SIZE.pack(size_bytes)])

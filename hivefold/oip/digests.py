"""Digests of a request's tensors, as docs/inference-audit.md describes them. Pure."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import Final

from hivefold.oip.limits import DIGEST_HEADS
from hivefold.oip.tensors import WireTensor

SALT_BYTES: Final = 32
DIGEST_BYTES: Final = 32
NO_DIGEST: Final = bytes(DIGEST_BYTES)
"""Stands where there is nothing to digest."""
_DOMAIN: Final = b"hivefold-tensors-v1\0"
_NUMBER: Final = struct.Struct(">I")
_SIZE: Final = struct.Struct(">Q")


class TensorDigester:
    """Digests sets of tensors under one salt. The order in which tensors are given does not matter."""

    def __init__(self, salt: bytes) -> None:
        self._start = hashlib.sha256(_DOMAIN + salt)
        self._heads: dict[tuple[str, str, tuple[int, ...]], bytes] = {}

    def digest(self, tensors: Iterable[WireTensor]) -> bytes:
        """SHA-256 of the domain, the salt, the number of tensors and each of them by name: 32 bytes."""
        found = self._start.copy()
        by_name = sorted(tensors, key=_name)
        found.update(_NUMBER.pack(len(by_name)))
        for tensor in by_name:
            found.update(self._head(tensor))
            found.update(tensor.data)
        return found.digest()

    def _head(self, tensor: WireTensor) -> bytes:
        """All but the data. Few are seen: each is kept."""
        key = tensor[:3]
        known = self._heads.get(key)
        if known is None:
            if len(self._heads) >= DIGEST_HEADS:
                self._heads.clear()
            known = self._heads[key] = _described(tensor)
        return known + _SIZE.pack(len(tensor.data))


def _described(tensor: WireTensor) -> bytes:
    name, data_type = tensor.name.encode(), tensor.data_type.encode()
    dims = b"".join([_SIZE.pack(dim) for dim in tensor.shape])
    sizes = (_NUMBER.pack(len(part)) for part in (name, data_type, tensor.shape))
    return b"".join([next(sizes), name, next(sizes), data_type, next(sizes), dims])


def _name(tensor: WireTensor) -> bytes:
    return tensor.name.encode()

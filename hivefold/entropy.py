"""The one place that draws random bytes."""

from __future__ import annotations

import os
import random
from typing import Protocol


class Entropy(Protocol):
    """A source of random bytes."""

    def draw(self, count: int) -> bytes:
        """`count` random bytes."""
        ...


class SystemEntropy:
    """The operating system's source."""

    def draw(self, count: int) -> bytes:
        """`count` random bytes."""
        return os.urandom(count)


class SeededEntropy:
    """The same bytes for the same seed. For tests and the simulation; never for keys."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - reproducible on purpose

    def draw(self, count: int) -> bytes:
        """`count` random bytes."""
        return self._random.randbytes(count)


def jitter() -> float:
    """A random fraction, from 0 to just below 1: spreads retries of many processes. Never for keys."""
    return int.from_bytes(os.urandom(4), "big") / 2**32

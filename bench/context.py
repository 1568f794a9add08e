"""What every benchmark is given."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.contender import Contender, contending
from bench.environment import MLSERVER, OURS, THEIRS


@dataclass(frozen=True, slots=True)
class Context:
    """A folder on the disk that is measured, and how often each contender has its turn."""

    workplace: Path
    rounds: int
    cores: int

    @classmethod
    def of(cls, workplace: Path, rounds: int) -> Context:
        """The context of this machine."""
        return cls(workplace, rounds, len(os.sched_getaffinity(0)))

    @contextmanager
    def ours(self, module: str, *arguments: object) -> Iterator[Contender]:
        """A contender in hivefold's environment."""
        with contending(OURS, module, *map(str, arguments), workplace=self.workplace) as contender:
            yield contender

    @contextmanager
    def theirs(self, module: str, *arguments: object) -> Iterator[Contender]:
        """A contender in the peers' environment."""
        with contending(THEIRS, module, *map(str, arguments), workplace=self.workplace) as contender:
            yield contender

    @contextmanager
    def mlserver(self, module: str, *arguments: object) -> Iterator[Contender]:
        """A contender in MLServer's environment."""
        with contending(MLSERVER, module, *map(str, arguments), workplace=self.workplace) as contender:
            yield contender

    def say(self, text: str) -> None:
        """Tells the person who waits."""
        print(f"  {text}", flush=True)

"""What is done to both sides. Each operation is a value; what it says is compared.

Operations name what they touch by relative places (the leader, the third delivery in hand), so that any part of
a script is a script: that is what makes shrinking possible.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from tests.truth.cast import Cast
from tests.truth.sides import FakeSide


@dataclass(frozen=True)
class Operation(ABC):
    """One step of a script."""

    def foresee(self, cast: Cast, fake: FakeSide) -> int:
        """How much is to come, as the fake knows before it acts: the real side waits for so much."""
        return 0

    @abstractmethod
    async def on(self, cast: Cast, due: int) -> object:
        """Does it; gives what there is to compare."""

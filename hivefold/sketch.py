"""Durations in little room: a DDSketch. Pure.

Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees",
PVLDB 12(12), 2019. Bucket i > 0 holds durations over g^(i-1) and up to g^i microseconds with
g = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR); bucket 0 those up to 1 microsecond. Unlike the paper's it never
collapses: MOST_BUCKETS cover an hour, and what takes longer counts as an hour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Final, Self

RELATIVE_ERROR: Final = 0.02
MOST_US: Final = 3_600_000_000
_GAMMA: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_SCALE: Final = 1 / math.log(_GAMMA)
MOST_BUCKETS: Final = math.ceil(math.log(MOST_US) * _SCALE) + 1


@dataclass(slots=True)
class DurationSketch:
    """How many durations each bucket holds."""

    buckets: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of_steps(cls, steps: Sequence[int], counts: Sequence[int]) -> Self:
        """What `steps` told; buckets beyond the last are counted into it."""
        sketch = cls()
        for bucket, count in zip(accumulate(steps), counts, strict=False):
            known = min(bucket, MOST_BUCKETS - 1)
            sketch.buckets[known] = sketch.buckets.get(known, 0) + count
        return sketch

    @property
    def count(self) -> int:
        """Durations in all."""
        return sum(self.buckets.values())

    def add(self, durations_ns: Iterable[int]) -> None:
        """Counts durations, in nanoseconds."""
        buckets = self.buckets
        for duration_ns in durations_ns:
            bucket = _bucket(duration_ns)
            buckets[bucket] = buckets.get(bucket, 0) + 1

    def merge(self, other: DurationSketch) -> None:
        """Counts all that `other` holds."""
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    def quantile_us(self, quantile: float) -> float:
        """A duration in microseconds, at most RELATIVE_ERROR off that of rank `quantile` (0 to 1); 0 where none is.

        Below a microsecond, and over an hour, it is that bound.
        """
        rank = quantile * (self.count - 1)
        below = 0
        for bucket in sorted(self.buckets):
            below += self.buckets[bucket]
            if below > rank:
                return 2 * _GAMMA**bucket / (_GAMMA + 1) if bucket else 1.0
        return 0.0

    def steps(self) -> tuple[list[int], list[int]]:
        """The buckets in ascending order, each less the one before it, and the count of each."""
        held = sorted(self.buckets)
        return [after - before for before, after in pairwise([0, *held])], [self.buckets[bucket] for bucket in held]


def _bucket(duration_ns: int) -> int:
    if duration_ns <= 1000:
        return 0
    return min(MOST_BUCKETS - 1, math.ceil(math.log(duration_ns / 1000) * _SCALE))

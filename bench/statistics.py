"""Median, spread and percentiles of a few measurements. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

_DRAWS: Final = 2000


@dataclass(frozen=True, slots=True)
class Summary:
    """What is shown of several runs: their median, with the least and the most."""

    median: float
    least: float
    most: float
    count: int


def summarize(values: Sequence[float]) -> Summary:
    """The summary of at least one value. Raises ValueError when there is none."""
    if not values:
        raise ValueError("nothing was measured: there is no median of no values")
    return Summary(median(values), min(values), max(values), len(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all values do not exceed (nearest rank)."""
    if not values:
        raise ValueError("nothing was measured: there is no percentile of no values")
    if not 0 < percent <= 100:
        raise ValueError(f"a percentile is above 0 and at most 100, not {percent}")
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def bootstrapped(values: Sequence[float]) -> tuple[float, float, float]:
    """The median between the ends of its 95 % interval (percentile bootstrap, Efron 1979; the same at each call)."""
    chance = random.Random(1979)
    medians = sorted(median(chance.choices(values, k=len(values))) for _ in range(_DRAWS))
    return percentile(medians, 2.5), median(values), percentile(medians, 97.5)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """Ours over theirs, round by round: both were measured in the same round, so what disturbs both cancels."""
    return tuple(our / their for our, their in zip(ours, theirs, strict=True))

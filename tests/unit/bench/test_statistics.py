from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.statistics import bootstrapped, percentile, ratios, summarize

VALUES = st.lists(st.floats(min_value=0.001, max_value=1e9), min_size=1, max_size=50)


@given(VALUES)
def test_the_median_lies_between_least_and_most(values: list[float]) -> None:
    """A summary keeps its order, whatever the values."""
    summary = summarize(values)

    assert summary.least <= summary.median <= summary.most
    assert summary.count == len(values)


@given(VALUES, st.integers(min_value=1, max_value=100))
def test_a_percentile_is_one_of_the_values_and_covers_its_share(values: list[float], percent: int) -> None:
    """At least `percent` of all values do not exceed it."""
    found = percentile(values, percent)

    assert found in values
    assert 100 * sum(value <= found for value in values) >= percent * len(values)


def test_percentiles_of_a_hundred_values_are_their_ranks() -> None:
    """The 50th of 1..100 is 50, the 99th 99."""
    values = [float(value) for value in range(100, 0, -1)]

    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (50, 99, 100)


@pytest.mark.parametrize("percent", [0, -1, 101])
def test_a_percentile_outside_its_range_is_refused(percent: float) -> None:
    """Only shares above 0 and up to 100 make sense."""
    with pytest.raises(ValueError, match="percentile"):
        percentile([1.0], percent)


@given(VALUES)
def test_an_interval_holds_the_median(values: list[float]) -> None:
    """The median of what was measured lies within its own interval, and that within what was measured."""
    low, middle, high = bootstrapped(values)

    assert min(values) <= low <= middle <= high <= max(values)


def test_an_interval_is_narrow_where_there_is_much_and_wide_where_there_is_little() -> None:
    """A hundred times as many values tell the median about ten times as exactly."""
    few, many = bootstrapped([float(n) for n in range(10)]), bootstrapped([n / 100 for n in range(1000)])

    assert few[2] - few[0] > 5 * (many[2] - many[0])


def test_nothing_measured_is_no_summary() -> None:
    """An empty series is an error, not a zero."""
    with pytest.raises(ValueError, match="nothing was measured"):
        summarize([])
    with pytest.raises(ValueError, match="nothing was measured"):
        percentile([], 50)


def test_ratios_pair_the_rounds() -> None:
    """Ours over theirs in the same round; a round that one of them missed is an error."""
    assert ratios([10, 40], [5, 10]) == (2, 4)
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [])

"""Sketches of durations: how far off they are, and that they merge."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hivefold.sketch import MOST_BUCKETS, MOST_US, RELATIVE_ERROR, DurationSketch

durations_ns = st.lists(st.integers(1000, MOST_US * 1000), min_size=1, max_size=60)


def sketch(found: list[int]) -> DurationSketch:
    made = DurationSketch()
    made.add(found)
    return made


@given(durations_ns, st.floats(0, 1))
def test_a_quantile_is_off_by_its_relative_error_at_most(found: list[int], quantile: float) -> None:
    """Of the rank that the paper names: the smallest duration with more than q(n-1) below or equal to it."""
    exact_us = sorted(found)[int(quantile * (len(found) - 1))] / 1000

    estimate = sketch(found).quantile_us(quantile)

    assert abs(estimate - exact_us) <= RELATIVE_ERROR * exact_us * (1 + 1e-9)


@given(durations_ns, durations_ns)
def test_merging_is_as_counting_all_together(one: list[int], other: list[int]) -> None:
    """Whichever way round."""
    merged, reverse = sketch(one), sketch(other)
    merged.merge(sketch(other))
    reverse.merge(sketch(one))

    assert merged.buckets == reverse.buckets == sketch(one + other).buckets
    assert merged.count == len(one) + len(other)


@given(st.lists(st.integers(0, 1 << 62), max_size=60))
def test_what_is_written_is_read(found: list[int]) -> None:
    """Any duration at all, and never more buckets than are said to be."""
    made = sketch(found)
    steps, counts = made.steps()

    assert DurationSketch.of_steps(steps, counts).buckets == made.buckets
    assert all(0 <= bucket < MOST_BUCKETS for bucket in made.buckets)


def test_what_is_beyond_the_ends_counts_as_the_end() -> None:
    """Below a microsecond and over an hour; a bucket that nobody writes is the last one."""
    assert sketch([0, 10]).quantile_us(1) == 1.0
    assert sketch([1 << 62]).buckets == sketch([MOST_US * 1000]).buckets
    assert DurationSketch.of_steps([1 << 31], [3]).buckets == {MOST_BUCKETS - 1: 3}
    assert DurationSketch().quantile_us(0.5) == 0.0

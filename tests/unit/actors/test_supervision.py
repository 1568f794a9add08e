"""When a failed actor is started again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.supervision import GiveUp, Restart, RestartPolicy, judge, remembered

POLICY = RestartPolicy(max_failures=3, window_ms=1000, first_wait_ms=10, longest_wait_ms=35)


def test_the_wait_doubles_with_each_failure_up_to_its_bound() -> None:
    """10, 20, then the bound."""
    waits = [judge(tuple(range(count)), count, POLICY) for count in (1, 2, 3)]
    assert waits == [Restart(10), Restart(20), Restart(35)]


def test_one_failure_too_many_within_the_window_is_given_up() -> None:
    """The fourth of at most three."""
    assert judge((0, 1, 2, 3), 3, POLICY) == GiveUp(failures=4)


def test_failures_before_the_window_are_forgiven() -> None:
    """Three long ago do not count."""
    assert judge((0, 1, 2, 5000), 5000, POLICY) == Restart(10)


@given(st.lists(st.integers(0, 10_000), min_size=1).map(sorted))
def test_forgetting_changes_no_verdict(failures: list[int]) -> None:
    """What is remembered decides as the whole history does."""
    now = failures[-1]
    kept = remembered(failures, now, POLICY)
    assert len(kept) <= POLICY.max_failures + 1
    whole, short = judge(failures, now, POLICY), judge(kept, now, POLICY)
    assert type(whole) is type(short)
    assert isinstance(whole, GiveUp) or whole == short

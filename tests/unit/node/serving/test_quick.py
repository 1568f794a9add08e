"""When batches run on the event loop, and when their actor has them back."""

from __future__ import annotations

import pytest

from actors.signature import Signature
from hivefold.models import TensorFacts
from hivefold.oip.limits import QUICK_BYTES, QUICK_NS, QUICK_PAUSE_RUNS, QUICK_RUNS, QUICK_WORST_NS
from node.serving.quick import Quick, can_be_quick


def measured(rows: int, took_ns: int = 50_000) -> Quick:
    quick = Quick()
    for _ in range(QUICK_RUNS):
        quick.note(rows, took_ns, here=False)
    return quick


def test_nothing_is_quick_before_it_was_measured_in_the_actor() -> None:
    """The first runs tell, and only for their own size."""
    assert not Quick().allows(1, 100)
    quick = measured(1)
    assert quick.allows(1, 100)
    assert not quick.allows(2, 100)


def test_sizes_are_taken_together_by_powers_of_two() -> None:
    """Five rows were measured: so four to seven are known."""
    quick = measured(5)
    assert [rows for rows in range(1, 12) if quick.allows(rows, 100)] == [4, 5, 6, 7]


def test_what_takes_long_or_is_large_goes_to_the_actor() -> None:
    """Both bounds."""
    assert not measured(1, QUICK_NS + 1).allows(1, 100)
    assert measured(1).allows(1, QUICK_BYTES)
    assert not measured(1).allows(1, QUICK_BYTES + 1)


def test_one_run_on_the_loop_that_took_too_long_sends_all_back_to_the_actor_for_a_while() -> None:
    """Whatever their size."""
    quick = measured(1)
    quick.note(64, QUICK_WORST_NS + 1, here=True)
    for _ in range(QUICK_PAUSE_RUNS):
        assert not quick.allows(1, 100)
        quick.note(1, 50_000, here=False)
    assert quick.allows(1, 100)


def test_a_long_run_in_the_actor_is_no_reason() -> None:
    """It kept nobody waiting, and the average tells the rest."""
    quick = measured(1)
    quick.note(64, QUICK_WORST_NS + 1, here=False)
    assert quick.allows(1, 100)


@pytest.mark.parametrize(
    ("shape", "data_type", "quick"),
    [
        ((-1, 64), "FP32", True),
        ((2, 64), "FP32", True),
        ((-1, -1), "FP32", False),
        ((2, -1), "FP32", False),
        ((-1, 64), "BYTES", False),
    ],
)
def test_only_the_number_of_rows_may_vary(shape: tuple[int, ...], data_type: str, quick: bool) -> None:
    """Else a batch of as many rows may be far more work."""
    facts = (TensorFacts("x", data_type, shape),)
    assert can_be_quick(Signature(facts, facts)) is quick

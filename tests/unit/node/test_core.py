"""Single steps in the life of attempts, where the laws alone would read as riddles."""

from __future__ import annotations

from hivefold.errors import Reason
from node.core import Abort, Acknowledge, Answer, Attempt, Batch, GiveBack, NodeCore, Start

BOOT = "boot-1"


def batch(delivery: int, *attempts: Attempt, term: int = 1, deadline_us: int = 0, group: int = 1) -> Batch:
    return Batch(delivery, term, BOOT, "job", attempts, deadline_us=deadline_us, group=group)


def test_a_message_is_acknowledged_only_after_its_last_outcome_is_stored() -> None:
    """Two attempts, one place."""
    core = NodeCore(BOOT, 1)
    one, two = Attempt(0, 1), Attempt(1, 1)
    assert core.accept(batch(7, one, two), 0) == [Start(1, 7, (one,))]
    assert core.stored(7, (one,)) == []
    assert core.finished(1, 0) == [Start(2, 7, (two,))]
    assert core.finished(2, 0) == []
    assert core.stored(7, (two,)) == [Acknowledge(7)]
    assert core.idle


def test_a_repeated_message_waits_for_the_one_that_runs_its_attempts() -> None:
    """Its acknowledgement would let the broker forget work whose outcome is not stored."""
    core = NodeCore(BOOT, 1)
    attempt = Attempt(0, 1)
    core.accept(batch(1, attempt), 0)
    assert core.accept(batch(2, attempt), 0) == []
    core.finished(1, 0)
    assert core.stored(1, (attempt,)) == [Acknowledge(1), Acknowledge(2)]


def test_a_lower_term_is_refused_also_when_only_a_pulse_told_of_the_higher() -> None:
    """A deposed coordinator gets nothing done."""
    core = NodeCore(BOOT, 1)
    core.observe_term(5)
    assert core.accept(batch(1, Attempt(0, 1), term=4), 0) == [Acknowledge(1)]


def test_a_later_attempt_replaces_an_earlier_one_that_waits() -> None:
    """The earlier one would be run in vain."""
    core = NodeCore(BOOT, 1)
    busy = Attempt(9, 1)
    core.accept(batch(1, busy), 0)
    core.accept(batch(2, Attempt(0, 1)), 0)
    core.accept(batch(3, Attempt(0, 2)), 0)
    effects = core.finished(1, 0)
    assert effects == [Acknowledge(2), Start(2, 3, (Attempt(0, 2),))]


def test_an_expired_attempt_costs_nothing_but_its_answer() -> None:
    """It is answered when its turn comes; the next one starts in its place."""
    core = NodeCore(BOOT, 1)
    core.accept(batch(1, Attempt(0, 1)), 0)
    late, fresh = Attempt(1, 1), Attempt(2, 1)
    core.accept(batch(2, late, deadline_us=100), 0)
    core.accept(batch(3, fresh), 0)
    assert core.finished(1, 100) == [Answer(2, (late,), Reason.DEADLINE_EXCEEDED), Start(2, 3, (fresh,))]


def test_fenced_work_is_given_back_and_accepted_when_it_comes_again() -> None:
    """What was dropped before it started is not remembered as done."""
    core = NodeCore(BOOT, 1)
    runs, waits = Attempt(0, 1), Attempt(1, 1)
    core.accept(batch(1, runs, waits), 0)
    assert core.fence() == []
    core.finished(1, 0)
    assert core.stored(1, (runs,)) == [GiveBack(1)]
    assert core.accept(batch(2, waits), 0) == [GiveBack(2)]
    core.unfence()
    assert core.accept(batch(3, runs, waits), 0) == [Start(2, 3, (waits,))]


def test_a_cancelled_job_is_answered_where_it_waits_and_aborted_where_it_runs() -> None:
    """The coordinator gets its slots back."""
    core = NodeCore(BOOT, 1)
    runs, waits = Attempt(0, 1), Attempt(1, 1)
    core.accept(batch(1, runs, waits), 0)
    assert core.cancel("job", 1, 0) == [Answer(1, (waits,), Reason.CANCELLED), Abort(1, Reason.CANCELLED)]


def test_a_leaving_node_returns_what_waits_and_what_still_comes() -> None:
    """Others may begin with it at once."""
    core = NodeCore(BOOT, 1)
    runs, waits, comes = Attempt(0, 1), Attempt(1, 1), Attempt(2, 1)
    core.accept(batch(1, runs, waits), 0)
    assert core.leave() == [Answer(1, (waits,), Reason.RETURNED)]
    assert core.accept(batch(2, comes), 0) == [Answer(2, (comes,), Reason.RETURNED)]
    assert core.return_running() == [Abort(1, Reason.RETURNED)]


def test_quick_attempts_of_a_batch_share_a_run() -> None:
    """Up to the group's size."""
    core = NodeCore(BOOT, 2)
    attempts = tuple(Attempt(task, 1) for task in range(5))
    assert core.accept(batch(1, *attempts, group=3), 0) == [Start(1, 1, attempts[:3]), Start(2, 1, attempts[3:])]

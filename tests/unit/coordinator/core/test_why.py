"""Why a task stands where it stands: told by the rules by which it would be placed."""

from __future__ import annotations

import pytest

from coordinator.core.events import RefusalReason
from coordinator.core.why import Standing, Why, first_waiting, why
from hivefold.ids import JobId
from tests.scenarios.driver import Driver


def told(story: str, job_id: str, task: int | None = None) -> Why:
    """What is said of a task after a story (see tests/scenarios/driver.py)."""
    driver = Driver()
    for line in story.strip().splitlines():
        list(driver.run(line.strip()))
    job = driver.state.jobs[JobId(job_id)]
    return why(driver.state, job, first_waiting(job) if task is None else task, driver.now_us)


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        ("zone=b", RefusalReason.LABEL_MISSING),
        ("gpus=1", RefusalReason.GPU_MISSING),
        ("memory_gib=8", RefusalReason.MEMORY_SHORT),
    ],
)
def test_a_need_that_no_node_meets_is_named(needs: str, reason: RefusalReason) -> None:
    """The node that could take it is gone: each node with what it lacks, the one that is gone with that."""
    story = f"""
        term c
        node able zone=b gpus=1 memory_gib=8
        node n1 zone=a memory_gib=4
        leave able gone=yes
        node able2 zone=b gpus=1 memory_gib=8
        drain able2
        probe job 2 {needs}
    """
    found = told(story, "job")

    assert found.standing is Standing.WAITS_FOR_ROOM
    assert [(r.node_id, r.reason) for r in found.refusals] == [
        ("able2", RefusalReason.DRAINING),
        ("n1", reason),
        ("able", RefusalReason.NOT_ONLINE),
    ]
    assert found.candidates == ()


def test_full_nodes_are_named() -> None:
    """Every slot and queue is taken by the job that came before."""
    found = told("term c\nnode n1 slots=1\nprobe first 100\nprobe second 5", "second")

    assert (found.standing, found.message) == (Standing.WAITS_FOR_ROOM, "it waits for a free slot on n1")
    assert [refusal.reason for refusal in found.refusals] == [RefusalReason.NO_FREE_SLOT]


def test_without_nodes_it_waits_for_one() -> None:
    """Nobody has joined."""
    found = told("term c\nprobe job 1", "job")

    assert (found.standing, found.refusals) == (Standing.WAITS_FOR_NODE, ())


RETRY = "term c\nnode n1 slots=2\nnode n2 slots=1\nprobe job 1\nfail n1 job RUNTIME_FAILED 0#1"


def test_a_retry_waits_for_its_time() -> None:
    """Who is avoided is named, and when it is due."""
    found = told(RETRY, "job")

    assert (found.standing, found.attempt) == (Standing.WAITS_FOR_RETRY, 1)
    assert found.retry_time_us > 0
    assert [(r.node_id, r.reason) for r in found.refusals] == [("n1", RefusalReason.FAILED_BEFORE)]
    assert [rank.node_id for rank in found.candidates] == ["n2"]


def test_a_due_retry_goes_with_the_next_placement() -> None:
    """Time has come and there is room: nothing is missing."""
    found = told(f"{RETRY}\nwait 5000", "job")

    assert (found.standing, found.message) == (Standing.WAITS_FOR_TURN, "there is room: the next placement takes it")


@pytest.mark.parametrize(
    ("story", "task", "standing", "message"),
    [
        ("probe job 1", 0, Standing.ASSIGNED, "it is not waiting: attempt 1 is with n1"),
        ("probe job 1\nok n1 job 0#1", 0, Standing.SUCCEEDED, "it is not waiting: n1 answered attempt 1"),
        ("probe job 9\ncancel job", 8, Standing.JOB_ENDED, "it is not waiting: the job was cancelled"),
    ],
)
def test_what_does_not_wait_says_so(story: str, task: int, standing: Standing, message: str) -> None:
    """With a node, done, or over."""
    found = told(f"term c\nnode n1 slots=2\n{story}", "job", task)

    assert found.standing is standing
    assert found.message.startswith(message)


def test_the_first_that_waits_is_looked_at() -> None:
    """A retry before what was never tried; else the first fresh task; else one that is with a node."""
    full = "term c\nnode n1 slots=1\nprobe job 100"
    assigned = told(full, "job", 0)
    fresh = told(full, "job")

    assert assigned.standing is Standing.ASSIGNED
    assert fresh.standing is Standing.WAITS_FOR_ROOM
    assert fresh.task > 0
    assert told(f"{full}\nfail n1 job RUNTIME_FAILED 0#1", "job").task == 0
    assert told("term c\nnode n1 slots=2\nprobe job 1", "job").task == 0

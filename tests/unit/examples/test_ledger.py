"""The demo's ledger: what it reads out of the log's events."""

from __future__ import annotations

from examples.demo.ledger import Ledger, read
from hivefold.v1.error_pb2 import REASON_NODE_LOST
from hivefold.v1.event_pb2 import (
    AttemptsLost,
    Event,
    JobSubmitted,
    JobSucceeded,
    NodeJoined,
    NodeLost,
    TasksAssigned,
    TasksPlanned,
    TasksSucceeded,
    TermStarted,
)
from hivefold.v1.fleet_pb2 import NodeSpec
from hivefold.v1.record_pb2 import Record, StoredRecord


def ledger(*events: Event) -> Ledger:
    """The ledger of job "j" over one record an event, a second apart."""
    stored = []
    for sequence, event in enumerate(events, 1):
        record = Record(sequence=sequence, events=[event])
        record.record_time.FromSeconds(1000 + sequence)
        stored.append(StoredRecord(sequence=sequence, data=record.SerializeToString()))
    return read("j", stored)


def joined(node: str) -> Event:
    return Event(node_joined=NodeJoined(spec=NodeSpec(node_id=node)))


def assigned(node: str, tasks: list[int], attempt: int, job: str = "j") -> Event:
    return Event(tasks_assigned=TasksAssigned(job_id=job, node_id=node, tasks=tasks, attempts=[attempt] * len(tasks)))


def succeeded(node: str, tasks: list[int], job: str = "j") -> Event:
    count = len(tasks)
    return Event(
        tasks_succeeded=TasksSucceeded(
            job_id=job, node_id=node, tasks=tasks, row_counts=[10] * count, durations_us=[500] * count
        )
    )


def a_loss() -> list[Event]:
    """Three tasks; node b is lost with two of them, node a does them again."""
    return [
        Event(term_started=TermStarted(coordinator_id="c")),
        joined("a"),
        joined("b"),
        Event(job_submitted=JobSubmitted(job_id="j")),
        Event(tasks_planned=TasksPlanned(job_id="j", task_count=3, row_counts=[10, 10, 10])),
        assigned("a", [0], 1),
        assigned("b", [1, 2], 1),
        succeeded("a", [0]),
        Event(node_lost=NodeLost(node_id="b", silent_ms=6000)),
        Event(attempts_lost=AttemptsLost(job_id="j", node_id="b", tasks=[1, 2], reason=REASON_NODE_LOST)),
        Event(term_started=TermStarted(coordinator_id="c")),
        assigned("a", [1, 2], 2),
        succeeded("a", [1, 2]),
        Event(job_succeeded=JobSucceeded(job_id="j")),
    ]


def test_lost_and_repeated_work_is_counted_by_node() -> None:
    """Every task finished once, though two were given out twice."""
    found = ledger(*a_loss())
    assert found.finished_once
    assert found.succeeded
    assert (found.planned_tasks, found.planned_rows) == (3, 30)
    assert (found.attempts_lost, found.tasks_repeated, len(found.terms)) == (2, 2, 2)
    assert (found.nodes["a"].tasks, found.nodes["a"].rows, found.nodes["a"].busy_us) == (3, 30, 1500)
    assert (found.nodes["b"].attempts_lost, found.nodes["b"].silent_ms) == (2, 6000)
    assert found.end_time_us - found.submit_time_us == 10_000_000


def test_a_missing_or_repeated_success_is_noticed() -> None:
    """The claim "exactly once" is checked, not assumed."""
    events = a_loss()
    assert not ledger(*events[:-2]).finished_once
    assert not ledger(*events, succeeded("b", [1])).finished_once
    assert not ledger(*events, succeeded("b", [7])).finished_once


def test_other_jobs_do_not_count() -> None:
    """The log tells of all jobs."""
    found = ledger(*a_loss(), assigned("a", [0], 1, "other"), succeeded("a", [0], "other"))
    assert found.finished_once
    assert found.nodes["a"].tasks == 3

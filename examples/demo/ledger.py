"""What happened to a job, from the events in the log and from nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from hivefold.v1.event_pb2 import AttemptsLost, Event, TasksAssigned, TasksPlanned, TasksSucceeded
from hivefold.v1.record_pb2 import Record, StoredRecord


@dataclass
class NodeLedger:
    """One node's share of the job."""

    tasks: int = 0
    rows: int = 0
    busy_us: int = 0
    attempts: int = 0
    attempts_lost: int = 0
    lost_time_us: int = 0
    """When it was given up; 0 if it never was."""
    silent_ms: int = 0


@dataclass
class Ledger:
    """The job as the log tells it. Times are Unix microseconds."""

    job_id: str
    records: int = 0
    events: int = 0
    terms: list[str] = field(default_factory=list)
    term_times_us: list[int] = field(default_factory=list)
    planned_tasks: int = 0
    planned_rows: int = 0
    submit_time_us: int = 0
    first_assign_time_us: int = 0
    end_time_us: int = 0
    succeeded: bool = False
    attempts_failed: int = 0
    nodes: dict[str, NodeLedger] = field(default_factory=dict)
    successes: Counter[int] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)
    finish_times_us: list[tuple[int, int]] = field(default_factory=list)
    """Time and rows of each report of finished tasks."""

    @property
    def finished_once(self) -> bool:
        """Whether every planned task has exactly one success, and no other task has any."""
        return dict(self.successes) == dict.fromkeys(range(self.planned_tasks), 1)

    @property
    def attempts_lost(self) -> int:
        """Attempts that ended without an answer."""
        return sum(node.attempts_lost for node in self.nodes.values())

    @property
    def tasks_repeated(self) -> int:
        """Tasks that were given out more than once."""
        return sum(count > 1 for count in self.attempts.values())

    def node(self, node_id: str) -> NodeLedger:
        """A node's entry, made when it is first named."""
        return self.nodes.setdefault(node_id, NodeLedger())


def read(job_id: str, stored: Iterable[StoredRecord]) -> Ledger:
    """Reads the log from its first record on."""
    ledger = Ledger(job_id)
    for item in stored:
        record = Record.FromString(item.data)
        ledger.records += 1
        for event in record.events:
            ledger.events += 1
            _note(ledger, event, _time_us(record.record_time))
    return ledger


def _note(ledger: Ledger, event: Event, time_us: int) -> None:
    kind = event.WhichOneof("body") or ""
    body = getattr(event, kind)
    if kind == "term_started":
        ledger.terms.append(body.coordinator_id)
        ledger.term_times_us.append(time_us)
    elif kind == "node_joined":
        ledger.node(body.spec.node_id)
    elif kind == "node_lost":
        node = ledger.node(body.node_id)
        node.lost_time_us, node.silent_ms = time_us, body.silent_ms
    elif getattr(body, "job_id", "") == ledger.job_id:
        _note_job(ledger, kind, body, time_us)


def _note_job(ledger: Ledger, kind: str, body: object, time_us: int) -> None:
    match kind, body:
        case "job_submitted", _:
            ledger.submit_time_us = time_us
        case _, TasksPlanned():
            ledger.planned_tasks += body.task_count
            ledger.planned_rows += sum(body.row_counts)
        case _, TasksAssigned():
            ledger.first_assign_time_us = ledger.first_assign_time_us or time_us
            ledger.attempts.update(body.tasks)
            ledger.node(body.node_id).attempts += len(body.tasks)
        case _, TasksSucceeded():
            node = ledger.node(body.node_id)
            node.tasks += len(body.tasks)
            node.rows += sum(body.row_counts)
            node.busy_us += sum(body.durations_us)
            ledger.successes.update(body.tasks)
            ledger.finish_times_us.append((time_us, sum(body.row_counts)))
        case _, AttemptsLost():
            ledger.node(body.node_id).attempts_lost += len(body.tasks)
        case "attempt_failed", _:
            ledger.attempts_failed += 1
        case "job_succeeded" | "job_failed" | "job_cancelled", _:
            ledger.end_time_us = time_us
            ledger.succeeded = kind == "job_succeeded"
        case _:
            pass


def _time_us(time: Timestamp) -> int:
    return time.seconds * 1_000_000 + time.nanos // 1000

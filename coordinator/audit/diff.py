"""What changed between two moments of one log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from coordinator.audit import telling
from coordinator.core.model import Job, Node, State
from hivefold.ids import ModelRef
from hivefold.log.port import ReadableLog
from hivefold.v1 import event_pb2
from hivefold.v1.record_pb2 import Record

_COUNTED: Final = {
    "tasks_planned": "tasks planned",
    "tasks_assigned": "attempts given to nodes",
    "tasks_succeeded": "tasks succeeded",
    "attempt_failed": "attempts failed",
    "attempts_lost": "attempts lost",
    "job_submitted": "jobs accepted",
    "job_succeeded": "jobs succeeded",
    "job_failed": "jobs failed",
    "job_cancelled": "jobs cancelled",
    "node_lost": "nodes given up",
}


class Mark(StrEnum):
    """How a thing changed."""

    ADDED = "+"
    CHANGED = "~"
    GONE = "-"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs, and how: field by field, "before -> after"."""

    mark: Mark
    kind: str
    name: str
    text: str


def changes(before: State, after: State) -> Iterator[Change]:
    """Everything that differs between two states of one log: terms, models, nodes, jobs, each in the order of names."""
    if before.term != after.term:
        text = f"{before.term} -> {after.term}, led by {after.coordinator_id}"
        yield Change(Mark.CHANGED if before.term else Mark.ADDED, "term", str(after.term), text)
    for ref in sorted(set(after.models) - set(before.models)):
        yield Change(Mark.ADDED, "model", ref, telling.model_text(after.models[ref]))
    for node_id, node in sorted(after.nodes.items()):
        known = before.nodes.get(node_id)
        if known is None:
            yield Change(Mark.ADDED, "node", node_id, f"{_node_fields(node)['state']}, {telling.node_text(node.spec)}")
        elif changed := _changed(_node_fields(known), _node_fields(node)):
            yield Change(Mark.CHANGED, "node", node_id, changed)
    for job_id, job in sorted(after.jobs.items()):
        earlier = before.jobs.get(job_id)
        if earlier is None:
            told = ", ".join(f"{name} {value}" for name, value in _job_fields(job).items() if value != "0")
            yield Change(Mark.ADDED, "job", job_id, told)
        elif changed := _changed(_job_fields(earlier), _job_fields(job)):
            yield Change(Mark.CHANGED, "job", job_id, changed)
    for job_id in sorted(set(before.jobs) - set(after.jobs)):
        yield Change(Mark.GONE, "job", job_id, "ended, and no longer kept in the coordinator's memory")


def _changed(before: dict[str, str], after: dict[str, str]) -> str:
    return ", ".join(f"{name} {before[name]} -> {after[name]}" for name in after if before[name] != after[name])


def _node_fields(node: Node) -> dict[str, str]:
    return {
        "state": node.state.lower() + (", draining" if node.draining else ""),
        "boot": node.spec.boot_id,
        "attempts outstanding": str(node.outstanding),
        "tasks succeeded": f"{node.tasks_succeeded:,}",
        "models loaded": str(len(node.loaded_models)),
    }


def _job_fields(job: Job) -> dict[str, str]:
    return {
        "state": job.state.lower(),
        "asked": telling.asked(job.spec, job.model.ref if job.model else ModelRef("")),
        "tasks planned": f"{job.planned:,}",
        "with nodes": f"{len(job.running):,}",
        "tasks succeeded": f"{len(job.done):,}",
        "attempts failed": f"{job.attempts_failed:,}",
        "attempts lost": f"{job.attempts_lost:,}",
        "failure": telling.failure(job.failure) if job.failure else "0",
    }


@dataclass(frozen=True, slots=True)
class Between:
    """What the records between two moments hold, counted."""

    records: int
    counts: tuple[tuple[str, int], ...]


async def between(log: ReadableLog, *, after: int, up_to: int) -> Between:
    """Counts what happened after one position, up to another. Raises LogCorruptError, BrokerUnavailableError."""
    counter: Counter[str] = Counter()
    async for page in log.read(after=after, up_to=up_to):
        for stored in page:
            for event in Record.FromString(stored.data).events:
                name = event.WhichOneof("body")
                if name in _COUNTED:
                    counter[name] += _weight(getattr(event, name))
    counts = tuple((told, counter[name]) for name, told in _COUNTED.items() if counter[name])
    return Between(max(0, up_to - after), counts)


def _weight(body: Any) -> int:
    """How many facts an event holds: it may speak of many tasks."""
    match body:
        case event_pb2.TasksPlanned():
            return int(body.task_count)
        case event_pb2.TasksAssigned() | event_pb2.TasksSucceeded() | event_pb2.AttemptsLost():
            return len(body.tasks)
        case _:
            return 1

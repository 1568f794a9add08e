"""How fast kinds of work were so far. Part of the fold: pure."""

from __future__ import annotations

from typing import Final, assert_never

from immutables import Map

from coordinator.core.events import TasksSucceeded
from coordinator.core.model import InferSpec, Job, ProbeSpec, Rate
from hivefold import limits

_WEIGHT: Final = 0.3
"""Weight of the newest attempts: follows a change within a few reports."""


def rate_key(job: Job) -> str:
    """Under which key the speed of a job's tasks is measured."""
    match job.spec.kind:
        case InferSpec():
            return job.model.digest if job.model else ""
        case ProbeSpec(task_duration_us=duration):
            return f"probe:{duration}"
        case other:
            assert_never(other)


def measured(rates: Map[str, Rate], key: str, event: TasksSucceeded, sequence: int) -> Map[str, Rate]:
    """The rates with the durations of an event at `sequence`; beyond RATES_KEPT the one unused for longest goes."""
    if not event.tasks:
        return rates
    rates = rates.set(key, _rate(rates.get(key), event, sequence))
    if len(rates) <= limits.RATES_KEPT:
        return rates
    return rates.delete(min((rate.sequence, key) for key, rate in rates.items())[1])


def _rate(known: Rate | None, event: TasksSucceeded, sequence: int) -> Rate:
    duration_us, count = sum(event.durations_us), len(event.tasks)
    task_us = duration_us / count
    rows_per_s = sum(event.row_counts) * 1e6 / max(1, duration_us)
    if known is None:
        return Rate(task_us, rows_per_s, count, sequence)
    return Rate(
        known.task_us + _WEIGHT * (task_us - known.task_us),
        known.rows_per_s + _WEIGHT * (rows_per_s - known.rows_per_s),
        known.samples + count,
        sequence,
    )

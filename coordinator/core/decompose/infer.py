"""Infer jobs: data-parallel shards of rows, sized from measured throughput towards a target task time.

Guided self-scheduling (Polychronopoulos and Kuck, 1987): only a few shards are planned ahead, each as
large as the measured rate makes the target duration, smaller towards the end so that all slots finish
together. The first shards of a model whose rate is not known are small pilots.
"""

from __future__ import annotations

import math
from typing import Final

from coordinator.core.decompose.plan_step import FleetView, PlanStep
from coordinator.core.model import InferSpec, Job
from hivefold import limits
from hivefold.element_types import ITEM_BYTES

_UNKNOWN_BYTES: Final = 8
"""What an element of a type that no array holds counts as: none is larger."""
_AHEAD: Final = 2
"""Unassigned shards kept planned per slot: enough that placement never waits for planning."""
_TAIL_SPLIT: Final = 2
"""A shard takes at most this fraction of a slot's fair share of what is left."""


def row_bytes(spec: InferSpec) -> int:
    """Size of one input row in bytes."""
    return ITEM_BYTES.get(spec.data_set.data_type, _UNKNOWN_BYTES) * math.prod(spec.data_set.row_shape)


def output_row_bytes(job: Job) -> int:
    """Size of one output row in bytes where the model states it; unknown dimensions count as 1."""
    if job.model is None:
        return 0
    return sum(
        ITEM_BYTES.get(tensor.data_type, _UNKNOWN_BYTES) * math.prod(max(1, size) for size in tensor.shape[1:])
        for tensor in job.model.outputs
    )


def plan_more(job: Job, spec: InferSpec, view: FleetView) -> PlanStep | None:
    """Shards until the few ahead of placement are planned again."""
    slots = max(1, view.slot_count)
    remaining = spec.data_set.row_count - job.rows_planned
    wanted = _AHEAD * slots - (job.planned - job.fresh)
    if wanted <= 0 or remaining <= 0:
        return None
    least = math.ceil(spec.data_set.row_count / limits.JOB_TASKS)
    most = _most_rows(job, spec)
    counts: list[int] = []
    while remaining > 0 and len(counts) < wanted:
        share = math.ceil(remaining / (slots * _TAIL_SPLIT))
        rows = _target_rows(job, spec, view)
        floor = max(least, rows // 8, 1)
        count = min(remaining, most, max(floor, min(rows, share)))
        counts.append(count)
        remaining -= count
    return PlanStep(len(counts), tuple(counts), last=remaining == 0)


def _target_rows(job: Job, spec: InferSpec, view: FleetView) -> int:
    """Rows that take the target time, or a pilot's rows while the rate is unknown."""
    if view.rate is not None and view.rate.rows_per_s > 0:
        target_us = spec.target_task_us or limits.TASK_TARGET_MS * 1000
        return max(1, int(view.rate.rows_per_s * target_us / 1e6))
    weight_bytes = job.model.artifact.size_bytes if job.model else 1
    by_work = limits.PILOT_WORK // max(1, weight_bytes)
    by_bytes = limits.PILOT_BYTES // max(1, row_bytes(spec))
    return max(1, min(by_work, by_bytes))


def _most_rows(job: Job, spec: InferSpec) -> int:
    """The most rows that the bounds on a task's input and output allow."""
    by_input = limits.SHARD_INPUT_BYTES // max(1, row_bytes(spec))
    by_output = limits.SHARD_OUTPUT_BYTES // max(1, output_row_bytes(job))
    return max(1, min(by_input, by_output, limits.SHARD_ROWS_MAX))

"""Probe jobs: all tasks at once, there is nothing to size."""

from __future__ import annotations

from coordinator.core.decompose.plan_step import PlanStep
from coordinator.core.model import ProbeSpec


def plan_more(spec: ProbeSpec) -> PlanStep:
    """Every task of the job."""
    return PlanStep(spec.task_count, (), last=True)

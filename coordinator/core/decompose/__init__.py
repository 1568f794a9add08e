"""Task decomposition: one pure module a job kind. Spec and fleet view in, tasks out."""

from __future__ import annotations

from typing import assert_never

from coordinator.core.decompose import infer, probe
from coordinator.core.decompose.plan_step import FleetView, PlanStep
from coordinator.core.model import InferSpec, Job, ProbeSpec

__all__ = ["FleetView", "PlanStep", "plan_more"]


def plan_more(job: Job, view: FleetView) -> PlanStep | None:
    """The tasks to add to an open job now; None when there are enough or no more."""
    if job.plan_complete:
        return None
    match job.spec.kind:
        case InferSpec() as spec:
            return infer.plan_more(job, spec, view)
        case ProbeSpec() as spec:
            return probe.plan_more(spec)
        case other:
            assert_never(other)

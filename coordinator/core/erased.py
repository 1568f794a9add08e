"""What is known of erased jobs. Pure."""

from __future__ import annotations

from coordinator.core.model import State
from hivefold.ids import JobId


def erased_us(state: State, job_id: JobId) -> int:
    """When a job's data were erased; 0 when they were not, or too long ago to be at hand."""
    return next((erasure.time_us for erasure in state.erasures if erasure.job_id == job_id), 0)

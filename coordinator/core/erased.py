"""What is known of erased jobs, and what is still owed to them. Pure."""

from __future__ import annotations

from collections.abc import Collection

from coordinator.core.model import Erasure, State
from hivefold.ids import JobId
from hivefold.limits import ERASURES_KEPT


def erased_us(state: State, job_id: JobId) -> int:
    """When a job's data were erased; 0 when they were not, or too long ago to be at hand."""
    return next((erasure.time_us for erasure in state.erasures if erasure.job_id == job_id), 0)


def owed_erasures(state: State) -> tuple[Erasure, ...]:
    """Those whose keys are not known to be gone, oldest first."""
    return tuple(erasure for erasure in state.erasures if not erasure.shredded)


def with_erasure(erasures: tuple[Erasure, ...], new: Erasure) -> tuple[Erasure, ...]:
    """One more; over the bound the oldest goes that is owed nothing. No decision lets more than that be owed."""
    if len(erasures) >= ERASURES_KEPT:
        leaves = next((index for index, erasure in enumerate(erasures) if erasure.shredded), 0)
        erasures = erasures[:leaves] + erasures[leaves + 1 :]
    return (*erasures, new)


def with_shredded(erasures: tuple[Erasure, ...], job_ids: Collection[JobId]) -> tuple[Erasure, ...]:
    """The same, with nothing owed to these jobs any more."""
    return tuple(erasure._replace(shredded=True) if erasure.job_id in job_ids else erasure for erasure in erasures)

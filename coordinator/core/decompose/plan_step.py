"""What decomposition sees and answers."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.core.model import Rate


@dataclass(frozen=True, slots=True)
class FleetView:
    """What decomposition may know of the fleet: slots that could take the job's tasks, and their speed."""

    slot_count: int
    rate: Rate | None


@dataclass(frozen=True, slots=True)
class PlanStep:
    """Tasks to add: how many, the rows of each (empty for kinds without rows), whether they are the last."""

    task_count: int
    row_counts: tuple[int, ...]
    last: bool

"""Adds tasks to a job where its decomposition says so. Pure."""

from __future__ import annotations

from coordinator.core.decompose import FleetView, plan_more
from coordinator.core.draft import Draft
from coordinator.core.events import TasksPlanned
from coordinator.core.model import Job, NodeState, State
from coordinator.core.place import memory_need, unmet_need
from coordinator.core.rates import rate_key
from hivefold.ids import JobId


def plan_tasks(draft: Draft, job_id: JobId) -> None:
    """Emits TasksPlanned when the job needs more tasks now."""
    job = draft.state.jobs[job_id]
    if job.plan_complete:
        return
    step = plan_more(job, fleet_view(draft.state, job))
    if step is not None:
        draft.emit(TasksPlanned(job_id, job.planned, step.task_count, step.row_counts, step.last))


def fleet_view(state: State, job: Job) -> FleetView:
    """The slots that could take the job's tasks, and how fast they were so far."""
    memory = memory_need(job)
    slots = sum(
        node.spec.slot_count
        for node in state.nodes.values()
        if node.state is NodeState.ONLINE
        and not node.draining
        and unmet_need(node.spec, job.spec.needs, memory) is None
    )
    return FleetView(slots, state.rates.get(rate_key(job)))

"""Decides which waiting tasks go where: urgent jobs first, fair shares within a priority. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final

from coordinator.core import events as ev
from coordinator.core.draft import Draft
from coordinator.core.model import Job, Priority, Rejected, State
from coordinator.core.place import Candidate, Ranking, rank, spread
from coordinator.core.planning import plan_tasks
from hivefold import limits
from hivefold.ids import JobId, NodeId

_ORDER: Final = (Priority.CONTROL, Priority.INTERACTIVE, Priority.BATCH)
_QUANTA: Final = 4
"""A job takes its share in about this many turns, so that shares stay fair while room runs out."""


def place_tasks(draft: Draft) -> Rejected | None:
    """Assigns tasks until nodes have no room or nothing waits."""
    for priority in _ORDER:
        jobs = ready_jobs(draft.state, priority)
        if jobs:
            _share(draft, jobs)
    return None


def ready_jobs(state: State, priority: Priority) -> list[JobId]:
    """Open jobs of a priority with tasks that could be assigned now, oldest first."""
    ready = [
        (sequence, job_id)
        for job_id, sequence in state.open_jobs.items()
        if state.jobs[job_id].spec.priority is priority and is_ready(state.jobs[job_id], state.time_us)
    ]
    return [job_id for _, job_id in sorted(ready)]


def is_ready(job: Job, now_us: int) -> bool:
    """Whether the job has a task that may be assigned now, or rows that are not planned yet."""
    if job.fresh < job.planned or not job.plan_complete:
        return True
    return any(time_us <= now_us for time_us in job.waiting.values())


def _share(draft: Draft, job_ids: Sequence[JobId]) -> None:
    """Gives turns to the job with the fewest attempts outstanding until no turn places anything."""
    order = {job_id: index for index, job_id in enumerate(job_ids)}
    heap = [(len(draft.state.jobs[job_id].running), order[job_id], job_id) for job_id in job_ids]
    heapq.heapify(heap)
    while heap:
        _, _, job_id = heapq.heappop(heap)
        others = len(heap)
        placed = _turn(draft, job_id, others)
        if placed:
            heapq.heappush(heap, (len(draft.state.jobs[job_id].running), order[job_id], job_id))


def _turn(draft: Draft, job_id: JobId, others: int) -> int:
    """Places some of a job's tasks; all that there is room for when no other job waits."""
    job = draft.state.jobs[job_id]
    ranking = rank(draft.state, job)
    room = sum(candidate.room for candidate in ranking.candidates)
    if room == 0:
        return 0
    plan_tasks(draft, job_id)
    job = draft.state.jobs[job_id]
    quantum = room if others == 0 else max(1, room // ((others + 1) * _QUANTA))
    placed = 0
    for task in _due_retries(job, draft.state.time_us)[:quantum]:
        placed += _place_retry(draft, job_id, task)
    if placed < quantum:
        placed += _place_fresh(draft, job_id, quantum - placed)
    return placed


def _place_fresh(draft: Draft, job_id: JobId, most: int) -> int:
    job = draft.state.jobs[job_id]
    count = min(most, job.planned - job.fresh)
    if count <= 0:
        return 0
    ranking = rank(draft.state, job)
    reason, task, placed = ranking.reason(), job.fresh, 0
    for node_id, share in spread(ranking.candidates, count).items():
        boot_id = draft.state.nodes[node_id].spec.boot_id
        for start in range(0, share, limits.ASSIGN_BATCH_TASKS):
            size = min(limits.ASSIGN_BATCH_TASKS, share - start)
            tasks = tuple(range(task, task + size))
            draft.emit(ev.TasksAssigned(job_id, node_id, boot_id, tasks, (1,) * size, reason))
            task += size
        placed += share
    return placed


def _place_retry(draft: Draft, job_id: JobId, task: int) -> int:
    """Places one task that was tried before, on a node where it did not fail as long as there is one."""
    job = draft.state.jobs[job_id]
    ranking = rank(draft.state, job)
    trouble = job.troubles.get(task)
    number = (trouble.number if trouble else 0) + 1
    avoided = {node_id for node_id, _ in trouble.failures} | set(trouble.lost_nodes) if trouble else set()
    ranking, wait = _avoiding(draft.state, job, ranking, avoided)
    if wait or not ranking.candidates:
        return 0
    node = ranking.candidates[0].node
    draft.emit(ev.TasksAssigned(job_id, node.spec.node_id, node.spec.boot_id, (task,), (number,), ranking.reason()))
    return 1


def _avoiding(state: State, job: Job, ranking: Ranking, avoided: set[NodeId]) -> tuple[Ranking, bool]:
    """Leaves out nodes where the task failed; says to wait when another node only lacks room now."""
    others = tuple(c for c in ranking.candidates if c.node.spec.node_id not in avoided)
    if others or not avoided:
        refusals = tuple(_failed_before(c) for c in ranking.candidates if c.node.spec.node_id in avoided)
        return Ranking(others, (*ranking.refusals, *refusals)), False
    busy = any(
        refusal.reason is ev.RefusalReason.NO_FREE_SLOT and refusal.node_id not in avoided
        for refusal in ranking.refusals
    )
    return ranking, busy


def _failed_before(candidate: Candidate) -> ev.NodeRefusal:
    return ev.NodeRefusal(
        candidate.node.spec.node_id, ev.RefusalReason.FAILED_BEFORE, "this task failed or was lost there before"
    )


def _due_retries(job: Job, now_us: int) -> list[int]:
    return sorted(task for task, time_us in job.waiting.items() if time_us <= now_us)

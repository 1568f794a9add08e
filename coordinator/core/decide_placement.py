"""Decides which waiting tasks go where: urgent jobs first, fair shares within a priority. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final

from coordinator.core import events as ev
from coordinator.core.draft import Draft
from coordinator.core.model import Job, Priority, Rejected, State, Trouble
from coordinator.core.place import Candidate, Ranking, may_take, rank, spread
from coordinator.core.planning import plan_tasks
from hivefold import limits
from hivefold.ids import JobId, NodeId

_ORDER: Final = (Priority.CONTROL, Priority.INTERACTIVE, Priority.BATCH)
_QUANTA: Final = 4
"""A job takes its share in about this many turns, so that shares stay fair while room runs out."""


def place_tasks(draft: Draft) -> Rejected | None:
    """Assigns tasks until nodes have no room or nothing waits."""
    if not any(may_take(node) for node in draft.state.nodes.values()):
        return None  # else every command would rank no nodes for each of thousands of jobs
    left = limits.PLACE_DECISION_TASKS
    for priority in _ORDER:
        jobs = ready_jobs(draft.state, priority)
        if jobs and left > 0:
            left -= _share(draft, jobs, left)
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


def _share(draft: Draft, job_ids: Sequence[JobId], most: int) -> int:
    """Gives turns to the job with the fewest attempts outstanding until no turn places anything."""
    total = 0
    order = {job_id: index for index, job_id in enumerate(job_ids)}
    heap = [(len(draft.state.jobs[job_id].running), order[job_id], job_id) for job_id in job_ids]
    heapq.heapify(heap)
    while heap and total < most:
        _, _, job_id = heapq.heappop(heap)
        others = len(heap)
        placed = _turn(draft, job_id, others)
        total += placed
        if placed and is_ready(draft.state.jobs[job_id], draft.state.time_us):
            heapq.heappush(heap, (len(draft.state.jobs[job_id].running), order[job_id], job_id))
    return total


def _turn(draft: Draft, job_id: JobId, others: int) -> int:
    """Places some of a job's tasks; all that there is room for when no other job waits."""
    ranked = draft.state
    ranking = rank(ranked, ranked.jobs[job_id])
    room = sum(candidate.room for candidate in ranking.candidates)
    if room == 0:
        return 0
    plan_tasks(draft, job_id)
    job = draft.state.jobs[job_id]
    room = min(room, limits.PLACE_DECISION_TASKS)
    quantum = room if others == 0 else max(1, room // ((others + 1) * _QUANTA))
    placed = 0
    for avoided, retries in _due_retries(job, draft.state.time_us, quantum).items():
        placed += _place_retries(draft, job_id, avoided, retries)
    if placed < quantum:
        placed += _place_fresh(draft, job_id, quantum - placed, ranking if draft.state is ranked else None)
    return placed


def _place_fresh(draft: Draft, job_id: JobId, most: int, ranking: Ranking | None) -> int:
    """Places tasks that were never tried; `ranking` is the nodes' where they are still as it saw them."""
    job = draft.state.jobs[job_id]
    count = min(most, job.planned - job.fresh)
    if count <= 0:
        return 0
    fresh = [(task, 1) for task in range(job.fresh, job.fresh + count)]
    return _assign(draft, job_id, ranking or rank(draft.state, job), fresh)


def _place_retries(draft: Draft, job_id: JobId, avoided: frozenset[NodeId], retries: list[tuple[int, int]]) -> int:
    """Places tasks that were tried before, on nodes where they did not fail as long as there are any."""
    job = draft.state.jobs[job_id]
    ranking, wait = avoiding(rank(draft.state, job), avoided)
    return 0 if wait else _assign(draft, job_id, ranking, retries)


def _assign(draft: Draft, job_id: JobId, ranking: Ranking, numbered: list[tuple[int, int]]) -> int:
    """Assigns as many of the (task, attempt number) as there is room for; returns how many."""
    reason, start = ranking.reason(), 0
    for node_id, share in spread(ranking.candidates, len(numbered)).items():
        boot_id = draft.state.nodes[node_id].spec.boot_id
        for first in range(start, start + share, limits.ASSIGN_BATCH_TASKS):
            part = numbered[first : min(first + limits.ASSIGN_BATCH_TASKS, start + share)]
            tasks, attempts = zip(*part, strict=True)
            draft.emit(ev.TasksAssigned(job_id, node_id, boot_id, tasks, attempts, reason))
        start += share
    return start


def avoiding(ranking: Ranking, avoided: frozenset[NodeId]) -> tuple[Ranking, bool]:
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


def nodes_to_avoid(trouble: Trouble) -> frozenset[NodeId]:
    """Where a task failed or was lost before."""
    return frozenset(node_id for node_id, _ in trouble.failures).union(trouble.lost_nodes)


def _failed_before(candidate: Candidate) -> ev.NodeRefusal:
    return ev.NodeRefusal(
        candidate.node.spec.node_id, ev.RefusalReason.FAILED_BEFORE, "this task failed or was lost there before"
    )


def _due_retries(job: Job, now_us: int, most: int) -> dict[frozenset[NodeId], list[tuple[int, int]]]:
    """Tasks to be tried again now, as (task, attempt number), grouped by the nodes to avoid."""
    groups: dict[frozenset[NodeId], list[tuple[int, int]]] = {}
    for task in sorted(task for task, time_us in job.waiting.items() if time_us <= now_us)[:most]:
        trouble = job.troubles[task]
        avoided = nodes_to_avoid(trouble)
        groups.setdefault(avoided, []).append((task, trouble.number + 1))
    return groups

"""Why a task stands where it stands: what it waits for, node by node, by the rules of placement. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from coordinator.core.decide_placement import avoiding, nodes_to_avoid
from coordinator.core.events import NodeRank, NodeRefusal, RefusalReason
from coordinator.core.model import Job, JobState, Node, State
from coordinator.core.place import Ranking, memory_need, rank, unmet_need
from hivefold.ids import NodeId


class Standing(StrEnum):
    """What a task waits for, or why it does not wait."""

    WAITS_FOR_NODE = "WAITS_FOR_NODE"
    """No node has what it needs, whatever runs there now."""
    WAITS_FOR_ROOM = "WAITS_FOR_ROOM"
    """Nodes that have what it needs are full or not ready."""
    WAITS_FOR_RETRY = "WAITS_FOR_RETRY"
    """An attempt failed; the next one is due later."""
    WAITS_FOR_TURN = "WAITS_FOR_TURN"
    """There is room; others go first, or the next placement takes it."""
    NOT_PLANNED = "NOT_PLANNED"
    """The job's rows are cut into tasks as room appears; this one is not cut yet."""
    ASSIGNED = "ASSIGNED"
    SUCCEEDED = "SUCCEEDED"
    JOB_ENDED = "JOB_ENDED"


_ENDED: Final = {JobState.SUCCEEDED: "succeeded", JobState.FAILED: "failed", JobState.CANCELLED: "was cancelled"}


@dataclass(frozen=True, slots=True)
class Why:
    """The answer: where the task stands, what is missing on each node that refuses it, and who could take it.

    `node_id`, `attempt`: with whom it is, or was, with which number; 0 before the first. `retry_time_us`: when
    the next attempt is due, 0 where that is no question of time.
    """

    task: int
    standing: Standing
    message: str
    refusals: tuple[NodeRefusal, ...] = ()
    candidates: tuple[NodeRank, ...] = ()
    node_id: NodeId | None = None
    attempt: int = 0
    retry_time_us: int = 0


def first_waiting(job: Job) -> int:
    """The task of an open job that waits and comes first; the first with a node where none waits."""
    if job.waiting:
        return min(job.waiting)
    if job.fresh < job.planned or not job.plan_complete:
        return job.fresh
    return min(job.running, default=0)


def why(state: State, job: Job, task: int, now_us: int) -> Why:
    """Why a task of a job stands where it stands at a time (Unix microseconds)."""
    done, running = job.done.get(task), job.running.get(task)
    if done is not None:
        message = f"it is not waiting: {done.node_id} answered attempt {done.number}"
        return Why(task, Standing.SUCCEEDED, message, node_id=done.node_id, attempt=done.number)
    if job.state.final:
        reason = f" ({job.failure.reason}: {job.failure.message})" if job.failure else ""
        return Why(task, Standing.JOB_ENDED, f"it is not waiting: the job {_ENDED[job.state]}{reason}")
    if running is not None:
        message = f"it is not waiting: attempt {running.number} is with {running.node_id}"
        return Why(task, Standing.ASSIGNED, message, node_id=running.node_id, attempt=running.number)
    return _waiting(state, job, task, now_us)


def _waiting(state: State, job: Job, task: int, now_us: int) -> Why:
    trouble = job.troubles.get(task)
    attempt = trouble.number if trouble else 0
    due_us = job.waiting.get(task, 0)
    ranking = _with_gone(state, job, rank(state, job))
    if trouble is not None:
        ranking, _ = avoiding(ranking, nodes_to_avoid(trouble))
    reason = ranking.reason()
    found = Why(task, Standing.WAITS_FOR_TURN, "", reason.refusals, reason.ranking, attempt=attempt)
    if due_us > now_us:
        message = f"attempt {attempt} failed or was lost; the next one is due in {(due_us - now_us) / 1e6:.1f} s"
        return replace(found, standing=Standing.WAITS_FOR_RETRY, message=message, retry_time_us=due_us)
    if not ranking.candidates:
        standing, message = _no_candidate(state, job, ranking)
        return replace(found, standing=standing, message=message)
    if task >= job.planned:
        message = "it is not cut yet: rows become tasks as nodes have room, and there is room"
        return replace(found, standing=Standing.NOT_PLANNED, message=message)
    return replace(found, message=_turn(state, job))


def _no_candidate(state: State, job: Job, ranking: Ranking) -> tuple[Standing, str]:
    if not state.nodes:
        return Standing.WAITS_FOR_NODE, "it waits for a node: none has joined"
    if all(_never(node, job) for node in state.nodes.values()):
        return Standing.WAITS_FOR_NODE, "it waits for a node that has what the job needs: none of them does"
    full = [refusal.node_id for refusal in ranking.refusals if refusal.reason is RefusalReason.NO_FREE_SLOT]
    if full:
        return Standing.WAITS_FOR_ROOM, f"it waits for a free slot on {', '.join(full)}"
    return Standing.WAITS_FOR_ROOM, "it waits until one of the nodes can take it again"


def _never(node: Node, job: Job) -> NodeRefusal | None:
    return unmet_need(node.spec, job.spec.needs, memory_need(job))


def _turn(state: State, job: Job) -> str:
    """What goes first where there is room."""
    order = list(type(job.spec.priority))
    mine = order.index(job.spec.priority)
    ahead = sum(
        1
        for job_id in state.open_jobs
        if job_id != job.job_id and order.index(state.jobs[job_id].spec.priority) <= mine
    )
    if not ahead:
        return "there is room: the next placement takes it"
    jobs = "1 other job that goes first or shares" if ahead == 1 else f"{ahead} other jobs that go first or share"
    return f"it waits for its turn: there is room, and {jobs} the nodes with it"


def _with_gone(state: State, job: Job, ranking: Ranking) -> Ranking:
    """The ranking with the nodes that are gone, which placement does not even look at."""
    gone = [
        _never(node, job) or NodeRefusal(node_id, RefusalReason.NOT_ONLINE, f"is {node.state.lower()}")
        for node_id, node in sorted(state.nodes.items())
        if node.state.gone
    ]
    return Ranking(ranking.candidates, (*ranking.refusals, *gone))

"""Lets go of what has ended, so that the state does not grow with the log. Part of the fold: pure and deterministic.

A retired job is not lost: the log has it (coordinator/history.py reads it there). Its request id stays known for
another REQUESTS_KEPT jobs.
"""

from __future__ import annotations

from immutables import Map

from coordinator.core.digest import spec_fingerprint
from coordinator.core.model import Job, Node, PastRequest, State
from hivefold import limits
from hivefold.ids import NodeId, RequestId


def tasks_held(job: Job) -> int:
    """How many tasks of an ended job the state still describes."""
    return max(len(job.done), len(job.rows))


def overfull(state: State) -> bool:
    """Whether more has ended than the state keeps."""
    return len(state.ended) > limits.RECENT_JOBS or state.ended_tasks > limits.RECENT_TASKS


def retire_jobs(state: State) -> State:
    """Lets the jobs go that ended first, until the rest is within bounds or is still needed."""
    while overfull(state):
        number = state.ended_total - len(state.ended)
        job = state.jobs.get(state.ended[number])
        if job is not None and _needed(state, job):
            break
        state = state._replace(ended=state.ended.delete(number))
        # A log that submits one id twice is nobody's; it must not stop the fold.
        if job is not None and job.state.final:
            state = _without(state, job)
    return state


def _needed(state: State, job: Job) -> bool:
    """Whether nodes may have to be told again to stop the job; far over the bounds that does not count."""
    return (
        bool(job.stopping)
        and state.time_us - job.end_time_us <= limits.CANCEL_REPEAT_US
        and len(state.ended) <= 2 * limits.RECENT_JOBS
        and state.ended_tasks <= 2 * limits.RECENT_TASKS
    )


def _without(state: State, job: Job) -> State:
    requests, past, order = state.requests, state.past_requests, state.past_order
    total = state.past_total
    if requests.get(job.request_id) == job.job_id:
        requests = requests.delete(job.request_id)
        past = past.set(job.request_id, PastRequest(job.job_id, spec_fingerprint(job.spec)))
        order, total = order.set(total, job.request_id), total + 1
        past, order = _bounded(past, order, total)
    return state._replace(
        jobs=state.jobs.delete(job.job_id),
        requests=requests,
        ended_tasks=state.ended_tasks - tasks_held(job),
        retired_sequence=job.sequence,
        past_requests=past,
        past_order=order,
        past_total=total,
    )


def _bounded(
    past: Map[RequestId, PastRequest], order: Map[int, RequestId], total: int
) -> tuple[Map[RequestId, PastRequest], Map[int, RequestId]]:
    if len(order) <= limits.REQUESTS_KEPT:
        return past, order
    oldest = total - len(order)
    request_id = order[oldest]
    return past.delete(request_id) if request_id in past else past, order.delete(oldest)


def forget_gone_nodes(nodes: Map[NodeId, Node]) -> Map[NodeId, Node]:
    """The nodes without the one that is gone for longest, where more than GONE_NODES are.

    One that is gone a moment ago stays until its attempts are lost too, in the same record.
    """
    if len(nodes) <= limits.GONE_NODES:
        return nodes
    gone = [(node.sequence, node_id, node.outstanding) for node_id, node in nodes.items() if node.state.gone]
    settled = [(sequence, node_id) for sequence, node_id, outstanding in gone if not outstanding]
    return nodes.delete(min(settled)[1]) if settled and len(gone) > limits.GONE_NODES else nodes

"""plan(state, now) -> what is still owed to the world, derived from state. Pure and level-triggered.

A restart performs `plan` as a whole and so sends again exactly what is owed; a running coordinator
performs `follow_up` after each record, which is the part of the plan that the record added. Every
action is idempotent: attempts carry their number and term.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, get_args

from coordinator.core import events as ev
from coordinator.core.commands import CommandBody, ExpireJobs, PlaceReplicas, PlaceTasks
from coordinator.core.decide_jobs import expired
from coordinator.core.decide_placement import is_ready
from coordinator.core.decide_replicas import retries_due
from coordinator.core.model import Job, NodeState, State
from coordinator.core.model_events import ModelChange
from hivefold import limits
from hivefold.ids import BootId, Digest, JobId, ModelRef, NodeId

_CHANGES_KEEPS: Final = (*get_args(ModelChange), ev.NodeJoined)


@dataclass(frozen=True, slots=True)
class SendWork:
    """A node is owed these attempts of a job."""

    node_id: NodeId
    boot_id: BootId
    job_id: JobId
    tasks: tuple[int, ...]
    attempts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SendCancel:
    """A node is to give up its attempts of a job that ended early."""

    node_id: NodeId
    job_id: JobId


@dataclass(frozen=True, slots=True)
class Keep:
    """A model version that a node is to keep loaded."""

    model: ModelRef
    digest: Digest
    pinned: bool


@dataclass(frozen=True, slots=True)
class SendKeeps:
    """A node is to keep exactly these models loaded, as was decided at `sequence`."""

    node_id: NodeId
    boot_id: BootId
    sequence: int
    keeps: tuple[Keep, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions towards nodes, and the commands that are due."""

    work: tuple[SendWork, ...]
    cancels: tuple[SendCancel, ...]
    keeps: tuple[SendKeeps, ...]
    commands: tuple[CommandBody, ...]


def plan(state: State, now_us: int) -> Plan:
    """Everything that is owed at this state and time."""
    work = tuple(action for job_id in oldest_first(state) for action in owed_work(state.jobs[job_id]))
    cancels = tuple(
        SendCancel(node_id, job.job_id)
        for job in sorted(_cancelled(state, now_us), key=_create_sequence)
        for node_id in job.stopping
    )
    return Plan(work, cancels, owed_keeps(state, sorted(state.kept)), due(state, now_us))


def oldest_first(state: State) -> list[JobId]:
    """Open jobs in the order in which they were submitted: a map's own order differs from process to process."""
    return sorted(state.open_jobs, key=state.open_jobs.__getitem__)


def _cancelled(state: State, now_us: int) -> Iterator[Job]:
    for job in state.jobs.values():
        if job.stopping and now_us - job.end_time_us <= limits.CANCEL_REPEAT_US:
            yield job


def _create_sequence(job: Job) -> int:
    return job.create_sequence


def owed_work(job: Job, node_id: NodeId | None = None) -> tuple[SendWork, ...]:
    """The attempts of one job that nodes (or one node) are owed, in bounded batches."""
    by_node: dict[tuple[NodeId, BootId], list[tuple[int, int]]] = {}
    for task, attempt in job.running.items():
        if node_id is None or attempt.node_id == node_id:
            by_node.setdefault((attempt.node_id, attempt.boot_id), []).append((task, attempt.number))
    actions: list[SendWork] = []
    for (node, boot), numbered in sorted(by_node.items()):
        numbered.sort()
        for first in range(0, len(numbered), limits.ASSIGN_BATCH_TASKS):
            tasks, attempts = zip(*numbered[first : first + limits.ASSIGN_BATCH_TASKS], strict=True)
            actions.append(SendWork(node, boot, job.job_id, tasks, attempts))
    return tuple(actions)


def owed_keeps(state: State, node_ids: Iterable[NodeId]) -> tuple[SendKeeps, ...]:
    """The orders that these nodes are owed: what they are to keep loaded. Only who is there, and was ever told any."""
    by_node: dict[NodeId, list[Keep]] = {
        node_id: [] for node_id in node_ids if node_id in state.kept and not state.nodes[node_id].state.gone
    }
    for ref, residency in sorted(state.residencies.items()) if by_node else ():
        for node_id in residency.nodes:
            if node_id in by_node:
                by_node[node_id].append(Keep(ref, state.models[ref].digest, residency.pinned))
    return tuple(
        SendKeeps(node_id, state.nodes[node_id].spec.boot_id, state.kept[node_id], tuple(keeps))
        for node_id, keeps in by_node.items()
    )


def keeps_changed(events: Iterable[ev.Event], state: State) -> tuple[SendKeeps, ...]:
    """The orders that a record's events add, given the state after it."""
    if not any(isinstance(event, _CHANGES_KEEPS) for event in events):
        return ()
    return owed_keeps(state, sorted(node_id for node_id, at in state.kept.items() if at == state.sequence))


def owed_discards(state: State) -> tuple[Digest, ...]:
    """Roots of bytes that may go: only removed models name them, and no open job reads them."""
    if not state.discarded:
        return ()
    jobs = (state.jobs[job_id].model for job_id in state.open_jobs)
    read = {model.artifact.root for model in jobs if model is not None}
    return tuple(sorted(root for root in state.discarded if root not in read))


def follow_up(events: Iterable[ev.Event], state: State) -> tuple[tuple[SendWork, ...], tuple[SendCancel, ...]]:
    """The actions that a record's events add, given the state after it."""
    work: list[SendWork] = []
    cancels: list[SendCancel] = []
    for event in events:
        match event:
            case ev.TasksAssigned():
                work.append(SendWork(event.node_id, event.boot_id, event.job_id, event.tasks, event.attempts))
            case ev.JobFailed(job_id=job_id) | ev.JobCancelled(job_id=job_id):
                job = state.jobs.get(job_id)
                cancels.extend(SendCancel(node_id, job_id) for node_id in (job.stopping if job else ()))
            case _:
                pass
    return tuple(work), tuple(cancels)


def due(state: State, now_us: int, *, placeable: bool = True) -> tuple[CommandBody, ...]:
    """The timer commands that would record something now; not `placeable`: no waiting task would find room."""
    commands: list[CommandBody] = []
    if expired(state, now_us):
        commands.append(ExpireJobs())
    if placeable and wants_placement(state, now_us):
        commands.append(PlaceTasks())
    if retries_due(state, now_us):
        commands.append(PlaceReplicas())
    return tuple(commands)


def wants_placement(state: State, now_us: int) -> bool:
    """Whether tasks wait and a node might take some. May be true in vain, never false in vain."""
    if not any(is_ready(state.jobs[job_id], now_us) for job_id in state.open_jobs):
        return False
    return any(
        node.state is NodeState.ONLINE and not node.draining and node.outstanding < limits.NODE_QUEUE_TASKS
        for node in state.nodes.values()
    )


def next_retry_us(state: State, now_us: int) -> int | None:
    """When the next task that failed or was lost may be tried again; None when none waits for its time."""
    waits = (time_us for job_id in state.open_jobs for time_us in state.jobs[job_id].waiting.values())
    return min((time_us for time_us in waits if time_us > now_us), default=None)

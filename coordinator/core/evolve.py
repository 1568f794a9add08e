"""evolve(state, event) -> State: the only way state changes, live and on replay. Total and pure.

A fact is a fact: nothing is refused here. What an event says of a job or node that is not known is
passed over, so a reader can fold the events of one job alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, assert_never

from immutables import Map

from coordinator.core import events as ev
from coordinator.core.erased import with_erasure, with_shredded
from coordinator.core.evolve_models import model_changed, model_registered, orders_after_loss
from coordinator.core.model import (
    Attempt,
    Done,
    Erasure,
    Failure,
    InferSpec,
    Job,
    JobState,
    Node,
    NodeState,
    Rows,
    SigningKey,
    State,
    Trouble,
)
from coordinator.core.model_events import ModelChange
from coordinator.core.rates import measured, rate_key
from coordinator.core.retire import forget_gone_nodes, overfull, retire_jobs, tasks_held
from hivefold.errors import Reason
from hivefold.ids import JobId, NodeId
from hivefold.limits import SIGNING_KEYS_KEPT

_NO_TROUBLE: Final = Trouble(0, (), 0, ())


def begin_record(state: State, sequence: int, time_us: int) -> State:
    """The state in which a record's events are folded: its position and time are now.

    What ended is let go here, never in the record in which it ended: readers of that record still see it.
    """
    state = state._replace(sequence=sequence, time_us=time_us)
    return retire_jobs(state) if overfull(state) else state


def evolve_all(state: State, sequence: int, time_us: int, events: Iterable[ev.Event]) -> State:
    """Folds one record."""
    state = begin_record(state, sequence, time_us)
    for event in events:
        state = evolve(state, event)
    return state


def evolve(state: State, event: ev.Event) -> State:
    """Folds one event; MUST be called between begin_record and the next."""
    match event:
        case ev.TasksSucceeded():
            return _tasks_succeeded(state, event)
        case ev.TasksAssigned():
            return _tasks_assigned(state, event)
        case ev.AttemptFailed():
            return _attempt_failed(state, event)
        case ev.AttemptsLost():
            return _attempts_lost(state, event)
        case ev.JobSubmitted():
            return _job_submitted(state, event)
        case ev.TasksPlanned():
            return _tasks_planned(state, event)
        case ev.JobSucceeded(job_id):
            return _job_ended(state, job_id, JobState.SUCCEEDED, None)
        case ev.JobFailed(job_id, failure):
            return _job_ended(state, job_id, JobState.FAILED, failure)
        case ev.JobCancelled(job_id, note):
            failure = Failure(Reason.CANCELLED, note or "cancelled by request")
            return _job_ended(state, job_id, JobState.CANCELLED, failure)
        case ev.TermStarted(term, coordinator_id, _):
            return state._replace(term=term, term_sequence=state.sequence, coordinator_id=coordinator_id)
        case ev.SigningKeyChanged():
            key = SigningKey(event.key_id, event.public_key, event.previous_key_id, event.endorsement, event.request_id)
            return state._replace(signing_keys=(*state.signing_keys, key)[-SIGNING_KEYS_KEPT:])
        case ev.JobErased() | ev.KeysShredded() | ev.SegmentOpened() | ev.SegmentClosed() | ev.InferencesRecorded():
            return _housekeeping(state, event)
        case ev.TermEnded():
            return state._replace(coordinator_id="")
        case ev.ModelRegistered(model):
            return model_registered(state, model)
        case _:
            return model_changed(state, event) if isinstance(event, ModelChange) else _node_event(state, event)


def _housekeeping(
    state: State,
    event: ev.JobErased | ev.KeysShredded | ev.SegmentOpened | ev.SegmentClosed | ev.InferencesRecorded,
) -> State:
    match event:
        case ev.JobErased(job_id, key_ids):
            return state._replace(erasures=with_erasure(state.erasures, Erasure(job_id, state.time_us, key_ids)))
        case ev.KeysShredded(job_ids):
            return state._replace(erasures=with_shredded(state.erasures, job_ids))
        case ev.SegmentOpened():
            return state._replace(term_sequence=state.sequence)
        case ev.SegmentClosed():
            return state
        case ev.InferencesRecorded(batches):
            return state._replace(inference_position=max(state.inference_position, *[b.position for b in batches], 0))
        case _:
            assert_never(event)


def _node_event(state: State, event: ev.NodeEvent) -> State:
    if isinstance(event, ev.NodeJoined):
        return _node_joined(state, event)
    node = state.nodes.get(event.node_id)
    if node is None:
        return state
    match event:
        case ev.NodeObserved():
            node = node._replace(
                loaded_models=event.loaded_models,
                memory_available_bytes=event.memory_available_bytes,
                cpu_utilization_percent=event.cpu_utilization_percent,
                observe_time_us=state.time_us,
            )
        case ev.NodeSuspected():
            node = node._replace(state=NodeState.SUSPECTED)
        case ev.NodeRecovered():
            node = node._replace(state=NodeState.ONLINE)
        case ev.NodeLost():
            node = node._replace(state=NodeState.LOST, loaded_models=())
        case ev.NodeLeaveStarted():
            node = node._replace(state=NodeState.LEAVING)
        case ev.NodeLeft():
            node = node._replace(state=NodeState.LEFT, loaded_models=())
        case ev.NodeDrainStarted():
            node = node._replace(draining=True)
        case ev.NodeDrainEnded():
            node = node._replace(draining=False)
        case _:
            assert_never(event)
    nodes = state.nodes.set(event.node_id, node._replace(sequence=state.sequence))
    if node.state.gone:
        nodes = forget_gone_nodes(nodes)
        return state._replace(nodes=nodes, kept=orders_after_loss(state, nodes, event.node_id))
    return state._replace(nodes=nodes)


def _node_joined(state: State, event: ev.NodeJoined) -> State:
    known = state.nodes.get(event.spec.node_id)
    node = Node(
        spec=event.spec,
        state=NodeState.ONLINE,
        draining=known.draining if known else False,
        join_time_us=state.time_us,
        sequence=state.sequence,
        outstanding=known.outstanding if known else 0,
        tasks_succeeded=known.tasks_succeeded if known else 0,
    )
    # One that boots anew and is back before it was missed keeps what it is to keep, one that was given up nothing.
    told = event.spec.node_id in state.kept
    kept = state.kept.set(event.spec.node_id, state.sequence) if told else state.kept
    return state._replace(nodes=state.nodes.set(event.spec.node_id, node), kept=kept)


def _job_submitted(state: State, event: ev.JobSubmitted) -> State:
    job = Job(
        job_id=event.job_id,
        request_id=event.request_id,
        spec=event.spec,
        model=state.models.get(event.model) or state.removed.get(event.model),
        state=JobState.PENDING,
        create_time_us=state.time_us,
        deadline_time_us=event.deadline_time_us,
        traceparent=event.traceparent,
        create_sequence=state.sequence,
        sequence=state.sequence,
    )
    return state._replace(
        jobs=state.jobs.set(job.job_id, job),
        open_jobs=state.open_jobs.set(job.job_id, state.sequence),
        requests=state.requests.set(job.request_id, job.job_id),
    )


def _tasks_planned(state: State, event: ev.TasksPlanned) -> State:
    job = state.jobs.get(event.job_id)
    if job is None or job.state.final:
        return state
    rows, next_row = job.rows, job.rows_planned
    if event.row_counts:
        with rows.mutate() as draft:
            for task, count in enumerate(event.row_counts, event.first_task):
                draft[task] = Rows(next_row, count)
                next_row += count
            rows = draft.finish()
    job = job._replace(
        sequence=state.sequence,
        planned=job.planned + event.task_count,
        rows=rows,
        rows_planned=next_row,
        plan_complete=event.last,
    )
    return state._replace(jobs=state.jobs.set(job.job_id, job))


def _tasks_assigned(state: State, event: ev.TasksAssigned) -> State:
    job = state.jobs.get(event.job_id)
    if job is None or job.state.final:
        return state
    waiting, fresh = job.waiting, job.fresh
    node_id, boot_id = event.node_id, event.boot_id
    with job.running.mutate() as running:
        for task, number in zip(event.tasks, event.attempts, strict=True):
            running[task] = Attempt(number, node_id, boot_id)
            if task >= fresh:
                fresh = task + 1
            elif task in waiting:
                waiting = waiting.delete(task)
        job = job._replace(
            sequence=state.sequence,
            state=JobState.RUNNING,
            start_time_us=job.start_time_us or state.time_us,
            running=running.finish(),
            waiting=waiting,
            fresh=fresh,
        )
    return state._replace(jobs=state.jobs.set(job.job_id, job), nodes=_outstanding(state, node_id, len(event.tasks)))


def _tasks_succeeded(state: State, event: ev.TasksSucceeded) -> State:
    job = state.jobs.get(event.job_id)
    if job is None or job.state.final:
        return state
    node_id, count = event.node_id, len(event.tasks)
    outputs = event.outputs or (None,) * count
    troubles = job.troubles
    running, done = job.running.mutate(), job.done.mutate()
    for task, number, duration, rows, position, output in zip(
        event.tasks,
        event.attempts,
        event.durations_us,
        event.row_counts,
        event.result_sequences,
        outputs,
        strict=True,
    ):
        running.pop(task, None)
        done[task] = Done(number, node_id, duration, rows, position, output)
        if task in troubles:
            troubles = troubles.delete(task)
    job = job._replace(
        sequence=state.sequence,
        running=running.finish(),
        done=done.finish(),
        troubles=troubles,
        rows_done=job.rows_done + sum(event.row_counts),
    )
    return state._replace(
        jobs=state.jobs.set(job.job_id, job),
        nodes=_outstanding(state, node_id, -count, succeeded=count),
        rates=measured(state.rates, rate_key(job), event, state.sequence),
    )


def _attempt_failed(state: State, event: ev.AttemptFailed) -> State:
    job = state.jobs.get(event.job_id)
    if job is None or job.state.final:
        return state
    known = job.troubles.get(event.task, _NO_TROUBLE)
    trouble = known._replace(number=event.attempt, failures=(*known.failures, (event.node_id, event.failure)))
    waiting = job.waiting.set(event.task, event.retry_time_us) if event.retry_time_us else job.waiting
    job = job._replace(
        sequence=state.sequence,
        running=_without(job.running, event.task),
        waiting=waiting,
        troubles=job.troubles.set(event.task, trouble),
        attempts_failed=job.attempts_failed + 1,
    )
    return state._replace(jobs=state.jobs.set(job.job_id, job), nodes=_outstanding(state, event.node_id, -1))


def _attempts_lost(state: State, event: ev.AttemptsLost) -> State:
    job = state.jobs.get(event.job_id)
    if job is None or job.state.final:
        return state
    lost = event.reason is not Reason.RETURNED
    running, waiting, troubles = job.running.mutate(), job.waiting.mutate(), job.troubles.mutate()
    for task, number in zip(event.tasks, event.attempts, strict=True):
        running.pop(task, None)
        waiting[task] = state.time_us
        trouble = troubles.get(task, _NO_TROUBLE)._replace(number=number)
        if lost:
            nodes = (*trouble.lost_nodes, event.node_id)
            trouble = trouble._replace(losses=trouble.losses + 1, lost_nodes=nodes)
        else:
            trouble = trouble._replace(returns=trouble.returns + 1)
        troubles[task] = trouble
    job = job._replace(
        sequence=state.sequence,
        running=running.finish(),
        waiting=waiting.finish(),
        troubles=troubles.finish(),
        attempts_lost=job.attempts_lost + len(event.tasks),
    )
    return state._replace(
        jobs=state.jobs.set(job.job_id, job), nodes=_outstanding(state, event.node_id, -len(event.tasks))
    )


def _job_ended(state: State, job_id: JobId, final: JobState, failure: Failure | None) -> State:
    job = state.jobs.get(job_id)
    if job is None or job.state.final:
        return state
    with_nodes: dict[NodeId, int] = {}
    for attempt in job.running.values():
        with_nodes[attempt.node_id] = with_nodes.get(attempt.node_id, 0) + 1
    for node_id, count in with_nodes.items():
        state = state._replace(nodes=_outstanding(state, node_id, -count))
    job = job._replace(
        sequence=state.sequence,
        state=final,
        end_time_us=state.time_us,
        failure=failure,
        running=Map(),
        waiting=Map(),
        troubles=Map(),
        rows=job.rows if isinstance(job.spec.kind, InferSpec) else Map(),
        stopping=tuple(sorted(with_nodes)),
    )
    return state._replace(
        open_jobs=state.open_jobs.delete(job_id) if job_id in state.open_jobs else state.open_jobs,
        jobs=state.jobs.set(job_id, job),
        ended=state.ended.set(state.ended_total, job_id),
        ended_total=state.ended_total + 1,
        ended_tasks=state.ended_tasks + tasks_held(job),
    )


def _without(attempts: Map[int, Attempt], task: int) -> Map[int, Attempt]:
    return attempts.delete(task) if task in attempts else attempts


def _outstanding(state: State, node_id: NodeId, change: int, succeeded: int = 0) -> Map[NodeId, Node]:
    """The nodes, one of them with more or fewer attempts."""
    node = state.nodes.get(node_id)
    if node is None:
        return state.nodes
    return state.nodes.set(
        node_id,
        node._replace(
            sequence=state.sequence,
            outstanding=max(0, node.outstanding + change),
            tasks_succeeded=node.tasks_succeeded + succeeded,
        ),
    )

"""Jobs, tasks, nodes and models as clients see them: messages made from the state."""

from __future__ import annotations

from typing import Final, assert_never

from coordinator.core.events import PlacementReason
from coordinator.core.model import InferSpec, Job, JobState, Node, ProbeSpec, TensorSpec
from coordinator.core.why import Why
from coordinator.wire.placement import placement_to_proto
from coordinator.wire.times import duration, timestamp
from coordinator.wire.values import (
    failure_to_proto,
    job_model_to_proto,
    job_spec_to_proto,
    node_spec_to_proto,
    tensor_spec_to_proto,
)
from hivefold.v1 import fleet_pb2, job_pb2, job_service_pb2, telemetry_pb2

JOB_STATES: Final = {state: job_pb2.JobState.Value(f"JOB_STATE_{state}") for state in JobState}


def job_view(job: Job) -> job_pb2.Job:
    """A job."""
    return job_pb2.Job(
        job_id=job.job_id,
        spec=job_spec_to_proto(job.spec),
        request_id=job.request_id,
        state=JOB_STATES[job.state],
        create_time=timestamp(job.create_time_us),
        start_time=timestamp(job.start_time_us),
        end_time=timestamp(job.end_time_us),
        deadline_time=timestamp(job.deadline_time_us),
        progress=_progress(job),
        failure=failure_to_proto(job.failure) if job.failure else None,
        model=job_model_to_proto(job.model) if job.model else None,
        sequence=job.sequence,
        outputs=[tensor_spec_to_proto(tensor) for tensor in _outputs(job)],
    )


def task_view(job: Job, task: int) -> job_pb2.Task:
    """One of a job's tasks; `task` MUST be planned."""
    rows = job.rows.get(task)
    view = job_pb2.Task(task=task, first_row=rows.first_row if rows else 0, row_count=rows.row_count if rows else 0)
    done, running, trouble = job.done.get(task), job.running.get(task), job.troubles.get(task)
    if done is not None:
        view.state, view.attempt, view.node_id = job_pb2.TASK_STATE_SUCCEEDED, done.number, done.node_id
        if (span := duration(done.duration_us)) is not None:
            view.duration.CopyFrom(span)
    elif running is not None:
        view.state, view.attempt, view.node_id = job_pb2.TASK_STATE_ASSIGNED, running.number, running.node_id
    else:
        view.state = job_pb2.TASK_STATE_FAILED if _is_culprit(job, task) else job_pb2.TASK_STATE_PENDING
        view.attempt = trouble.number if trouble else 0
        if trouble and trouble.failures:
            view.node_id = trouble.failures[-1][0]
    return view


def node_view(
    node: Node, *, heartbeat_time_us: int = 0, reading: telemetry_pb2.Reading | None = None, refusal: str = ""
) -> fleet_pb2.Node:
    """A node, with what was last heard of it."""
    return fleet_pb2.Node(
        spec=node_spec_to_proto(node.spec),
        state=fleet_pb2.NodeState.Value(f"NODE_STATE_{node.state}"),
        draining=node.draining,
        attempts_outstanding=node.outstanding,
        loaded_models=node.loaded_models,
        join_time=timestamp(node.join_time_us),
        heartbeat_time=timestamp(heartbeat_time_us),
        reading=reading,
        tasks_succeeded=node.tasks_succeeded,
        sequence=node.sequence,
        refusal=refusal,
    )


def why_view(why: Why, sequence: int) -> job_service_pb2.WhyTaskResponse:
    """Why a task stands where it stands, at a position of the log."""
    reason = placement_to_proto(PlacementReason(why.candidates, why.refusals))
    return job_service_pb2.WhyTaskResponse(
        task=why.task,
        standing=job_service_pb2.TaskStanding.Value(f"TASK_STANDING_{why.standing}"),
        message=why.message,
        refusals=reason.refusals,
        candidates=reason.ranking,
        node_id=why.node_id or "",
        attempt=why.attempt,
        retry_time=timestamp(why.retry_time_us),
        sequence=sequence,
    )


def _progress(job: Job) -> job_pb2.JobProgress:
    match job.spec.kind:
        case InferSpec(data_set=data_set):
            total = data_set.row_count
        case ProbeSpec(task_count=task_count):
            total = task_count
        case other:
            assert_never(other)
    return job_pb2.JobProgress(
        tasks_planned=job.planned,
        tasks_running=len(job.running),
        tasks_succeeded=len(job.done),
        attempts_failed=job.attempts_failed,
        attempts_lost=job.attempts_lost,
        rows_done=job.rows_done,
        rows_total=total,
    )


def _outputs(job: Job) -> tuple[TensorSpec, ...]:
    """The model's outputs that the job asks for, in the order it asks; shapes of one row."""
    kind = job.spec.kind
    if job.model is None or not isinstance(kind, InferSpec):
        return ()
    rows = {t.name: TensorSpec(t.name, t.data_type, t.shape[1:]) for t in job.model.outputs}
    return tuple(rows[name] for name in kind.outputs or rows if name in rows)


def _is_culprit(job: Job, task: int) -> bool:
    """Whether this is the task that failed its job."""
    return job.failure is not None and ("task", str(task)) in job.failure.metadata

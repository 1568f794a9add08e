"""Events to and from protobuf. Reading is the replay's hot path: the frequent bodies come first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, assert_never

from google.protobuf.unknown_fields import UnknownFieldSet

from coordinator.core import events as ev
from coordinator.core.model_events import ModelChange
from coordinator.wire import values as v
from coordinator.wire.inference import summary_from_proto, summary_to_proto
from coordinator.wire.model_events import READERS as MODEL_READERS
from coordinator.wire.model_events import model_change_to_proto
from coordinator.wire.placement import placement_from_proto, placement_to_proto
from coordinator.wire.times import micros, timestamp
from hivefold.errors import EventUnknownError, Reason
from hivefold.ids import BootId, Digest, JobId, ModelRef, NodeId, RequestId
from hivefold.v1 import event_pb2 as pb
from hivefold.version import VERSION


def event_to_proto(event: ev.Event) -> pb.Event:
    """One event."""
    match event:
        case ev.TasksSucceeded():
            return pb.Event(
                tasks_succeeded=pb.TasksSucceeded(
                    job_id=event.job_id,
                    node_id=event.node_id,
                    tasks=event.tasks,
                    attempts=event.attempts,
                    durations_us=event.durations_us,
                    row_counts=event.row_counts,
                    result_sequences=event.result_sequences,
                    outputs=[v.output_to_proto(output) for output in event.outputs],
                )
            )
        case ev.TasksAssigned():
            return pb.Event(
                tasks_assigned=pb.TasksAssigned(
                    job_id=event.job_id,
                    node_id=event.node_id,
                    boot_id=event.boot_id,
                    tasks=event.tasks,
                    attempts=event.attempts,
                    reason=placement_to_proto(event.reason),
                )
            )
        case (
            ev.JobSubmitted()
            | ev.TasksPlanned()
            | ev.AttemptFailed()
            | ev.AttemptsLost()
            | ev.JobSucceeded()
            | ev.JobFailed()
            | ev.JobCancelled()
            | ev.JobErased()
        ):
            return _job_event_to_proto(event)
        case ev.KeysShredded(job_ids):
            return pb.Event(ignorable=True, keys_shredded=pb.KeysShredded(job_ids=job_ids))
        case ev.InferencesRecorded(batches):
            body = pb.InferencesRecorded(batches=map(summary_to_proto, batches))
            return pb.Event(ignorable=True, inferences_recorded=body)
        case _:
            if isinstance(event, ModelChange):
                return model_change_to_proto(event)
            return _fleet_event_to_proto(event)


def _job_event_to_proto(
    event: ev.JobSubmitted
    | ev.TasksPlanned
    | ev.AttemptFailed
    | ev.AttemptsLost
    | ev.JobSucceeded
    | ev.JobFailed
    | ev.JobCancelled
    | ev.JobErased,
) -> pb.Event:
    message = pb.Event()
    match event:
        case ev.JobSubmitted():
            body = message.job_submitted
            body.job_id, body.request_id, body.model = event.job_id, event.request_id, event.model
            body.spec.CopyFrom(v.job_spec_to_proto(event.spec))
            body.traceparent = event.traceparent
            if (deadline := timestamp(event.deadline_time_us)) is not None:
                body.deadline_time.CopyFrom(deadline)
        case ev.TasksPlanned():
            planned = message.tasks_planned
            planned.job_id, planned.first_task = event.job_id, event.first_task
            planned.task_count, planned.last = event.task_count, event.last
            planned.row_counts.extend(event.row_counts)
        case ev.AttemptFailed():
            failed = message.attempt_failed
            failed.job_id, failed.task, failed.attempt = event.job_id, event.task, event.attempt
            failed.node_id = event.node_id
            failed.failure.CopyFrom(v.failure_to_proto(event.failure))
            if (retry := timestamp(event.retry_time_us)) is not None:
                failed.retry_time.CopyFrom(retry)
        case ev.AttemptsLost():
            lost = message.attempts_lost
            lost.job_id, lost.node_id, lost.reason = event.job_id, event.node_id, v.REASON_TO_PROTO[event.reason]
            lost.tasks.extend(event.tasks)
            lost.attempts.extend(event.attempts)
        case ev.JobSucceeded():
            message.job_succeeded.job_id = event.job_id
        case ev.JobFailed():
            message.job_failed.job_id = event.job_id
            message.job_failed.failure.CopyFrom(v.failure_to_proto(event.failure))
        case ev.JobCancelled():
            message.job_cancelled.job_id, message.job_cancelled.note = event.job_id, event.note
        case ev.JobErased():
            message.job_erased.job_id = event.job_id
            message.job_erased.key_ids.extend(event.key_ids)
        case _:
            assert_never(event)
    return message


def _fleet_event_to_proto(
    event: ev.TermStarted
    | ev.SigningKeyChanged
    | ev.TermEnded
    | ev.SegmentClosed
    | ev.SegmentOpened
    | ev.ModelRegistered
    | ev.NodeEvent,
) -> pb.Event:
    match event:
        case ev.TermStarted(term, coordinator_id, version):
            body = pb.TermStarted(term=term, coordinator_id=coordinator_id, code_version=version)
            return pb.Event(term_started=body)
        case ev.SigningKeyChanged():
            return _key_to_proto(event)
        case ev.SegmentClosed(segment):
            return pb.Event(segment_closed=pb.SegmentClosed(segment=segment))
        case ev.SegmentOpened(segment):
            return pb.Event(segment_opened=pb.SegmentOpened(segment=segment))
        case ev.TermEnded(term, note):
            # A release that does not know it reads on: the next term says all that it needs.
            return pb.Event(ignorable=True, term_ended=pb.TermEnded(term=term, note=note))
        case ev.ModelRegistered(model):
            return pb.Event(model_registered=pb.ModelRegistered(model=v.model_to_proto(model)))
        case ev.NodeJoined(spec):
            return pb.Event(node_joined=pb.NodeJoined(spec=v.node_spec_to_proto(spec)))
        case ev.NodeObserved():
            observed = pb.NodeObserved(
                node_id=event.node_id,
                loaded_models=event.loaded_models,
                memory_available_bytes=event.memory_available_bytes,
                cpu_utilization_percent=event.cpu_utilization_percent,
            )
            return pb.Event(node_observed=observed)
        case ev.NodeSuspected(node_id, silent_ms):
            return pb.Event(node_suspected=pb.NodeSuspected(node_id=node_id, silent_ms=silent_ms))
        case ev.NodeRecovered(node_id):
            return pb.Event(node_recovered=pb.NodeRecovered(node_id=node_id))
        case ev.NodeLost(node_id, boot_id, silent_ms):
            return pb.Event(node_lost=pb.NodeLost(node_id=node_id, boot_id=boot_id, silent_ms=silent_ms))
        case ev.NodeLeaveStarted(node_id, boot_id):
            return pb.Event(node_leave_started=pb.NodeLeaveStarted(node_id=node_id, boot_id=boot_id))
        case ev.NodeLeft(node_id, boot_id):
            return pb.Event(node_left=pb.NodeLeft(node_id=node_id, boot_id=boot_id))
        case ev.NodeDrainStarted(node_id, note):
            return pb.Event(node_drain_started=pb.NodeDrainStarted(node_id=node_id, note=note))
        case ev.NodeDrainEnded(node_id):
            return pb.Event(node_drain_ended=pb.NodeDrainEnded(node_id=node_id))
        case _:
            assert_never(event)


def _key_to_proto(event: ev.SigningKeyChanged) -> pb.Event:
    # 0.1.0, which signs nothing, may pass it over: a fleet can be taken back.
    return pb.Event(
        ignorable=True,
        signing_key_changed=pb.SigningKeyChanged(
            key_id=event.key_id,
            public_key=event.public_key,
            previous_key_id=event.previous_key_id,
            endorsement=event.endorsement,
            request_id=event.request_id,
        ),
    )


def event_from_proto(message: pb.Event, position: int) -> ev.Event | None:
    """One event; None for an unknown body that may be skipped.

    Raises EventUnknownError with `position` for an unknown body that may not.
    """
    body = message.WhichOneof("body")
    read = _READERS.get(body) if body is not None else None
    if read is not None:
        return read(message)
    if message.ignorable:
        return None
    unknown = UnknownFieldSet(message)
    numbers = ", ".join(str(unknown[at].field_number) for at in range(len(unknown))) or "none"
    raise EventUnknownError(
        f"record {position} holds an event (field {numbers}) that hivefold {VERSION} does not know: a newer version "
        "wrote it; upgrade hivefold",
        position=position,
    )


def _tasks_succeeded(message: pb.Event) -> ev.Event:
    body = message.tasks_succeeded
    return ev.TasksSucceeded(
        JobId(body.job_id),
        NodeId(body.node_id),
        tuple(body.tasks),
        tuple(body.attempts),
        tuple(body.durations_us),
        tuple(body.row_counts),
        tuple(body.result_sequences),
        tuple([v.output_from_proto(output) for output in body.outputs]),
    )


def _tasks_assigned(message: pb.Event) -> ev.Event:
    body = message.tasks_assigned
    return ev.TasksAssigned(
        JobId(body.job_id),
        NodeId(body.node_id),
        BootId(body.boot_id),
        tuple(body.tasks),
        tuple(body.attempts),
        placement_from_proto(body.reason),
    )


def _job_submitted(message: pb.Event) -> ev.Event:
    body = message.job_submitted
    return ev.JobSubmitted(
        JobId(body.job_id),
        RequestId(body.request_id),
        v.job_spec_from_proto(body.spec),
        ModelRef(body.model),
        micros(body.deadline_time),
        body.traceparent,
    )


def _tasks_planned(message: pb.Event) -> ev.Event:
    body = message.tasks_planned
    return ev.TasksPlanned(JobId(body.job_id), body.first_task, body.task_count, tuple(body.row_counts), body.last)


def _attempt_failed(message: pb.Event) -> ev.Event:
    body = message.attempt_failed
    failure = v.failure_from_proto(body.failure)
    retry_us = micros(body.retry_time)
    return ev.AttemptFailed(JobId(body.job_id), body.task, body.attempt, NodeId(body.node_id), failure, retry_us)


def _attempts_lost(message: pb.Event) -> ev.Event:
    body = message.attempts_lost
    reason = v.REASON_FROM_PROTO.get(body.reason, Reason.NODE_LOST)
    return ev.AttemptsLost(JobId(body.job_id), NodeId(body.node_id), tuple(body.tasks), tuple(body.attempts), reason)


def _node_observed(message: pb.Event) -> ev.Event:
    body = message.node_observed
    return ev.NodeObserved(
        NodeId(body.node_id),
        tuple(Digest(digest) for digest in body.loaded_models),
        body.memory_available_bytes,
        body.cpu_utilization_percent,
    )


def _signing_key_changed(event: pb.Event) -> ev.Event:
    body = event.signing_key_changed
    return ev.SigningKeyChanged(
        body.key_id, body.public_key, body.previous_key_id, body.endorsement, RequestId(body.request_id)
    )


def _term_started(message: pb.Event) -> ev.Event:
    body = message.term_started
    return ev.TermStarted(body.term, body.coordinator_id, body.code_version)


def _node_lost(message: pb.Event) -> ev.Event:
    body = message.node_lost
    return ev.NodeLost(NodeId(body.node_id), BootId(body.boot_id), body.silent_ms)


_READERS: Final[dict[str, Callable[[pb.Event], ev.Event]]] = {
    "tasks_succeeded": _tasks_succeeded,
    "tasks_assigned": _tasks_assigned,
    "job_submitted": _job_submitted,
    "tasks_planned": _tasks_planned,
    "attempt_failed": _attempt_failed,
    "attempts_lost": _attempts_lost,
    "job_succeeded": lambda e: ev.JobSucceeded(JobId(e.job_succeeded.job_id)),
    "job_failed": lambda e: ev.JobFailed(JobId(e.job_failed.job_id), v.failure_from_proto(e.job_failed.failure)),
    "job_cancelled": lambda e: ev.JobCancelled(JobId(e.job_cancelled.job_id), e.job_cancelled.note),
    "job_erased": lambda e: ev.JobErased(JobId(e.job_erased.job_id), tuple(e.job_erased.key_ids)),
    "keys_shredded": lambda e: ev.KeysShredded(tuple(map(JobId, e.keys_shredded.job_ids))),
    "inferences_recorded": lambda e: ev.InferencesRecorded(
        tuple(map(summary_from_proto, e.inferences_recorded.batches))
    ),
    "term_started": _term_started,
    "signing_key_changed": _signing_key_changed,
    "segment_closed": lambda e: ev.SegmentClosed(e.segment_closed.segment),
    "segment_opened": lambda e: ev.SegmentOpened(e.segment_opened.segment),
    "term_ended": lambda e: ev.TermEnded(e.term_ended.term, e.term_ended.note),
    "model_registered": lambda e: ev.ModelRegistered(v.model_from_proto(e.model_registered.model)),
    "node_joined": lambda e: ev.NodeJoined(v.node_spec_from_proto(e.node_joined.spec)),
    "node_observed": _node_observed,
    "node_suspected": lambda e: ev.NodeSuspected(NodeId(e.node_suspected.node_id), e.node_suspected.silent_ms),
    "node_recovered": lambda e: ev.NodeRecovered(NodeId(e.node_recovered.node_id)),
    "node_lost": _node_lost,
    "node_leave_started": lambda e: ev.NodeLeaveStarted(
        NodeId(e.node_leave_started.node_id), BootId(e.node_leave_started.boot_id)
    ),
    "node_left": lambda e: ev.NodeLeft(NodeId(e.node_left.node_id), BootId(e.node_left.boot_id)),
    "node_drain_started": lambda e: ev.NodeDrainStarted(
        NodeId(e.node_drain_started.node_id), e.node_drain_started.note
    ),
    "node_drain_ended": lambda e: ev.NodeDrainEnded(NodeId(e.node_drain_ended.node_id)),
    **MODEL_READERS,
}

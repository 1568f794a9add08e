"""Events and actions as one line each, without what is empty or always the same."""

from __future__ import annotations

from itertools import groupby

from coordinator.core import events as ev
from coordinator.core import model_events as mev
from coordinator.core.model import Failure, InferSpec, Rejected
from coordinator.core.plan import SendCancel, SendKeeps, SendWork


def render_event(event: ev.Event) -> str:
    """One event."""
    name = type(event).__name__
    match event:
        case ev.NodeJoined(spec):
            return f"{name} {spec.node_id} boot={spec.boot_id} slots={spec.slot_count}"
        case ev.NodeSuspected() | ev.NodeLost():
            return f"{name} {event.node_id} silent_ms={event.silent_ms}"
        case ev.TermStarted():
            return f"{name} {event.term} by {event.coordinator_id}"
        case ev.SigningKeyChanged():
            return f"{name} {event.key_id} after {event.previous_key_id or 'none'}"
        case ev.SegmentClosed() | ev.SegmentOpened():
            return f"{name} {event.segment}"
        case ev.TermEnded():
            return f"{name} {event.term}"
        case ev.ModelRegistered(model):
            return f"{name} {model.ref}"
        case ev.KeysShredded(job_ids):
            return f"{name} {' '.join(job_ids)}"
        case ev.InferencesRecorded(batches):
            return f"{name} {' '.join(f'{batch.node_id}/{batch.number}' for batch in batches)}"
        case (
            ev.NodeObserved()
            | ev.NodeRecovered()
            | ev.NodeLeaveStarted()
            | ev.NodeLeft()
            | ev.NodeDrainStarted()
            | ev.NodeDrainEnded()
        ):
            return f"{name} {event.node_id}"
        case _:
            if isinstance(event, mev.ModelChange):
                return f"{name} {_model_change(event)}"
            return f"{name} {event.job_id}{_job_event(event)}"


def _model_change(event: mev.ModelChange) -> str:
    match event:
        case mev.AliasMoved():
            return f"{event.name}@{event.alias} to {event.version} from {event.previous_version or 'none'}"
        case mev.AliasRemoved():
            return f"{event.name}@{event.alias} from {event.previous_version}"
        case mev.ResidencySet():
            return f"{event.model} replicas={event.replica_count}{' pinned' if event.pinned else ''}"
        case mev.ReplicasPlaced():
            return f"{event.model} on {', '.join(event.node_ids)}{_why(event.reason)}"
        case mev.ReplicasReleased():
            return f"{event.model} from {', '.join(event.node_ids)} {event.cause}"
        case mev.ReplicaFailed():
            return f"{event.model} on {event.node_id} {event.failure.reason}"
        case mev.ModelRemoved():
            return f"{event.model}{' by force' if event.forced else ''}"
        case mev.ArtifactRemoved():
            return event.root[:8]


def _job_event(event: ev.JobEvent) -> str:
    match event:
        case ev.JobSubmitted():
            kind = f"infer {event.model}" if isinstance(event.spec.kind, InferSpec) else "probe"
            return f" {kind}"
        case ev.TasksPlanned():
            rows = f" rows={','.join(map(str, event.row_counts))}" if event.row_counts else ""
            span = spans([(task, 0) for task in range(event.first_task, event.first_task + event.task_count)])
            return f" {span.replace('#0', '')}{rows}{' last' if event.last else ''}"
        case ev.TasksAssigned():
            return f" to {event.node_id} {spans(_pairs(event))}{_why(event.reason)}"
        case ev.TasksSucceeded():
            return f" on {event.node_id} {spans(_pairs(event))}"
        case ev.AttemptFailed():
            again = "tried again" if event.retry_time_us else "not tried again"
            return f" on {event.node_id} {event.task}#{event.attempt} {event.failure.reason}, {again}"
        case ev.AttemptsLost():
            return f" on {event.node_id} {spans(_pairs(event))} {event.reason}"
        case ev.JobFailed(_, failure):
            return f" {render_failure(failure)}"
        case ev.JobErased(_, key_ids):
            return f" {','.join(key_ids)}"
        case ev.JobSucceeded() | ev.JobCancelled():
            return ""


def render_failure(failure: Failure) -> str:
    """Reason and message."""
    return f"{failure.reason}: {failure.message}"


def render_rejection(rejected: Rejected) -> str:
    """A refusal, as a caller would read it."""
    return f"REFUSED {rejected.reason}: {rejected.message}"


def render_action(action: SendWork | SendCancel | SendKeeps) -> str:
    """What is sent to a node."""
    if isinstance(action, SendKeeps):
        kept = ", ".join(f"{keep.model}{' (pinned)' if keep.pinned else ''}" for keep in action.keeps) or "nothing"
        return f"tell {action.node_id} to keep {kept}"
    if isinstance(action, SendCancel):
        return f"tell {action.node_id} to give up {action.job_id}"
    return f"send {action.node_id} {action.job_id} {spans(list(zip(action.tasks, action.attempts, strict=True)))}"


def spans(tasks: list[tuple[int, int]]) -> str:
    """(task, attempt number) pairs, runs of tasks as one: "0-3#1 7#2"."""
    runs = groupby(enumerate(tasks), key=lambda item: (item[1][0] - item[0], item[1][1]))
    parts = []
    for (_, number), run in runs:
        found = [task for _, (task, _) in run]
        parts.append(f"{found[0]}#{number}" if len(found) == 1 else f"{found[0]}-{found[-1]}#{number}")
    return " ".join(parts)


def _pairs(event: ev.TasksAssigned | ev.TasksSucceeded | ev.AttemptsLost) -> list[tuple[int, int]]:
    return list(zip(event.tasks, event.attempts, strict=True))


def _why(reason: ev.PlacementReason) -> str:
    refused = ", ".join(f"{refusal.node_id} {refusal.reason}" for refusal in reason.refusals)
    best = ", ".join(f"{rank.node_id}{' (loaded)' if rank.model_loaded else ''}" for rank in reason.ranking)
    return f" of [{best}]" + (f" not [{refused}]" if refused else "")

"""Public events derived from records: what WatchJob, WatchNodes and the event stream say. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from coordinator.core import events as ev
from coordinator.core.evolve import begin_record, evolve
from coordinator.core.model import State
from coordinator.views import job_view, node_view
from coordinator.wire.times import timestamp
from coordinator.wire.values import failure_to_proto
from hivefold.ids import JobId, NodeId
from hivefold.v1 import feed_pb2 as pb
from hivefold.v1 import job_pb2

_JOB_TYPES: Final[dict[type[ev.JobEvent], pb.JobEventType.ValueType]] = {
    ev.JobSubmitted: pb.JOB_EVENT_TYPE_SUBMITTED,
    ev.TasksPlanned: pb.JOB_EVENT_TYPE_TASKS_PLANNED,
    ev.TasksAssigned: pb.JOB_EVENT_TYPE_TASKS_ASSIGNED,
    ev.TasksSucceeded: pb.JOB_EVENT_TYPE_TASKS_SUCCEEDED,
    ev.AttemptFailed: pb.JOB_EVENT_TYPE_ATTEMPT_FAILED,
    ev.AttemptsLost: pb.JOB_EVENT_TYPE_ATTEMPTS_LOST,
    ev.JobSucceeded: pb.JOB_EVENT_TYPE_SUCCEEDED,
    ev.JobFailed: pb.JOB_EVENT_TYPE_FAILED,
    ev.JobCancelled: pb.JOB_EVENT_TYPE_CANCELLED,
    ev.JobErased: pb.JOB_EVENT_TYPE_ERASED,
}
_NODE_TYPES: Final[dict[type[ev.NodeEvent], pb.NodeEventType.ValueType]] = {
    ev.NodeJoined: pb.NODE_EVENT_TYPE_JOINED,
    ev.NodeObserved: pb.NODE_EVENT_TYPE_OBSERVED,
    ev.NodeSuspected: pb.NODE_EVENT_TYPE_SUSPECTED,
    ev.NodeRecovered: pb.NODE_EVENT_TYPE_RECOVERED,
    ev.NodeLost: pb.NODE_EVENT_TYPE_LOST,
    ev.NodeLeaveStarted: pb.NODE_EVENT_TYPE_LEAVE_STARTED,
    ev.NodeLeft: pb.NODE_EVENT_TYPE_LEFT,
    ev.NodeDrainStarted: pb.NODE_EVENT_TYPE_DRAIN_STARTED,
    ev.NodeDrainEnded: pb.NODE_EVENT_TYPE_DRAIN_ENDED,
}
FINAL_TYPES: Final = frozenset({pb.JOB_EVENT_TYPE_SUCCEEDED, pb.JOB_EVENT_TYPE_FAILED, pb.JOB_EVENT_TYPE_CANCELLED})
"""After an event of one of these types a job does not change any more."""


class Decided(Protocol):
    """A record with the state after it: coordinator.followers.Committed, or one folded from the log."""

    @property
    def sequence(self) -> int:
        """Position of the record."""
        ...

    @property
    def time_us(self) -> int:
        """When it was recorded."""
        ...

    @property
    def events(self) -> Sequence[ev.Event]:
        """What was decided."""
        ...

    @property
    def state(self) -> State:
        """The state after it; may hold only the jobs and nodes of interest."""
        ...


@dataclass(frozen=True, slots=True)
class Folded:
    """A record read back from the log, with the fold of it over a partial state."""

    sequence: int
    time_us: int
    events: tuple[ev.Event, ...]
    state: State


@dataclass(frozen=True, slots=True)
class Scope:
    """Which jobs are of interest, or every job; and whether nodes are."""

    jobs: frozenset[JobId]
    nodes: bool = False
    every_job: bool = False

    def may_hold(self, data: bytes) -> bool:
        """Whether a stored record could be of interest, told without reading it: ids are stored as they are."""
        return self.nodes or self.every_job or any(job_id.encode() in data for job_id in self.jobs)

    def holds(self, event: ev.Event) -> bool:
        """Whether an event is of interest."""
        if isinstance(event, ev.JobEvent):
            return self.every_job or event.job_id in self.jobs
        return self.nodes and isinstance(event, ev.NodeEvent)


def fold(state: State, scope: Scope, sequence: int, time_us: int, events: Iterable[ev.Event]) -> Folded:
    """Folds what is in scope of one record over a partial state."""
    events = tuple(events)
    after = begin_record(state, sequence, time_us)
    for event in events:
        if scope.holds(event):
            after = evolve(after, event)
    return Folded(sequence, time_us, events, after)


def job_ids(events: Iterable[ev.Event]) -> Iterator[JobId]:
    """The jobs that events are about."""
    return (event.job_id for event in events if isinstance(event, ev.JobEvent))


def job_events(decided: Decided, scope: Scope | None = None) -> Iterator[pb.JobEvent]:
    """The events of jobs in a record, in its order; those in scope, or all."""
    views: dict[JobId, job_pb2.Job] = {}
    for index, event in enumerate(decided.events):
        if isinstance(event, ev.JobEvent) and (scope is None or event.job_id in scope.jobs):
            job = decided.state.jobs.get(event.job_id)
            if job is None:
                continue
            if event.job_id not in views:
                views[event.job_id] = job_view(job)
            message = pb.JobEvent(
                sequence=decided.sequence,
                index=index,
                event_time=timestamp(decided.time_us),
                type=_JOB_TYPES[type(event)],
                job=views[event.job_id],
            )
            _add_particulars(message, event)
            yield message


def node_events(decided: Decided) -> Iterator[pb.NodeEvent]:
    """The events of nodes in a record, in its order."""
    for index, event in enumerate(decided.events):
        if isinstance(event, ev.NodeEvent):
            node = decided.state.nodes.get(_node_id(event))
            if node is not None:
                yield pb.NodeEvent(
                    sequence=decided.sequence,
                    index=index,
                    event_time=timestamp(decided.time_us),
                    type=_NODE_TYPES[type(event)],
                    node=node_view(node),
                )


def _add_particulars(message: pb.JobEvent, event: ev.JobEvent) -> None:
    match event:
        case ev.TasksAssigned(node_id=node_id, tasks=tasks) | ev.TasksSucceeded(node_id=node_id, tasks=tasks):
            message.node_id = node_id
            message.tasks.extend(tasks)
        case ev.AttemptsLost(node_id=node_id, tasks=tasks):
            message.node_id = node_id
            message.tasks.extend(tasks)
        case ev.AttemptFailed(task=task, node_id=node_id, failure=failure):
            message.node_id = node_id
            message.tasks.append(task)
            message.failure.CopyFrom(failure_to_proto(failure))
        case ev.JobFailed(failure=failure):
            message.failure.CopyFrom(failure_to_proto(failure))
        case _:
            # Planned tasks can be a million: the job's progress says how many.
            pass


def _node_id(event: ev.NodeEvent) -> NodeId:
    return event.spec.node_id if isinstance(event, ev.NodeJoined) else event.node_id

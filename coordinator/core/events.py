"""Facts: the only things that change the state. Field by field as in protos/hivefold/v1/event.proto. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from coordinator.core.inference import InferenceBatch
from coordinator.core.model import Failure, JobSpec, Model, NodeSpec, TaskOutput
from coordinator.core.model_events import ModelChange
from coordinator.core.placement import NodeRank, NodeRefusal, PlacementReason, RefusalReason
from hivefold.errors import Reason
from hivefold.ids import BootId, Digest, JobId, ModelRef, NodeId, RequestId

__all__ = ["NodeRank", "NodeRefusal", "PlacementReason", "RefusalReason"]


@dataclass(frozen=True, slots=True)
class TermStarted:
    """A coordinator began to lead."""

    term: int
    coordinator_id: str
    code_version: str


@dataclass(frozen=True, slots=True)
class SigningKeyChanged:
    """Checkpoints are signed with another key from now on."""

    key_id: str
    public_key: bytes
    previous_key_id: str
    endorsement: bytes
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class TermEnded:
    """The leader handed over: nothing more is decided in this term."""

    term: int
    note: str


@dataclass(frozen=True, slots=True)
class SegmentClosed:
    """The last record of a segment of the log."""

    segment: int


@dataclass(frozen=True, slots=True)
class SegmentOpened:
    """The first record of a segment of the log: the fence from here on."""

    segment: int


@dataclass(frozen=True, slots=True)
class ModelRegistered:
    """A model version was registered."""

    model: Model


@dataclass(frozen=True, slots=True)
class NodeJoined:
    """A node joined, or came back with a new boot."""

    spec: NodeSpec


@dataclass(frozen=True, slots=True)
class NodeObserved:
    """What placement looks at changed materially on a node."""

    node_id: NodeId
    loaded_models: tuple[Digest, ...]
    memory_available_bytes: int
    cpu_utilization_percent: int


@dataclass(frozen=True, slots=True)
class NodeSuspected:
    """A node was not heard for a while."""

    node_id: NodeId
    silent_ms: int


@dataclass(frozen=True, slots=True)
class NodeRecovered:
    """A suspected node was heard again."""

    node_id: NodeId


@dataclass(frozen=True, slots=True)
class NodeLost:
    """A node was given up."""

    node_id: NodeId
    boot_id: BootId
    silent_ms: int


@dataclass(frozen=True, slots=True)
class NodeLeaveStarted:
    """A node began to leave: it finishes what runs and gets no new work."""

    node_id: NodeId
    boot_id: BootId


@dataclass(frozen=True, slots=True)
class NodeLeft:
    """A node left in good order."""

    node_id: NodeId
    boot_id: BootId


@dataclass(frozen=True, slots=True)
class NodeDrainStarted:
    """A node gets no new work from now on."""

    node_id: NodeId
    note: str


@dataclass(frozen=True, slots=True)
class NodeDrainEnded:
    """A node gets work again."""

    node_id: NodeId


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    """A job was accepted."""

    job_id: JobId
    request_id: RequestId
    spec: JobSpec
    model: ModelRef
    deadline_time_us: int
    traceparent: str


@dataclass(frozen=True, slots=True)
class TasksPlanned:
    """Tasks were added to a job; `row_counts` is empty for kinds without rows."""

    job_id: JobId
    first_task: int
    task_count: int
    row_counts: tuple[int, ...]
    last: bool


@dataclass(frozen=True, slots=True)
class TasksAssigned:
    """Attempts were given to a node; entries of `tasks` and `attempts` belong together."""

    job_id: JobId
    node_id: NodeId
    boot_id: BootId
    tasks: tuple[int, ...]
    attempts: tuple[int, ...]
    reason: PlacementReason


@dataclass(frozen=True, slots=True)
class TasksSucceeded:
    """Tasks succeeded; entries belong together. `outputs` is empty or as long as `tasks`."""

    job_id: JobId
    node_id: NodeId
    tasks: tuple[int, ...]
    attempts: tuple[int, ...]
    durations_us: tuple[int, ...]
    row_counts: tuple[int, ...]
    result_sequences: tuple[int, ...]
    outputs: tuple[TaskOutput, ...]


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt failed; `retry_time_us` is 0 when it is not tried again."""

    job_id: JobId
    task: int
    attempt: int
    node_id: NodeId
    failure: Failure
    retry_time_us: int


@dataclass(frozen=True, slots=True)
class AttemptsLost:
    """Attempts ended without an outcome: NODE_LOST or RETURNED."""

    job_id: JobId
    node_id: NodeId
    tasks: tuple[int, ...]
    attempts: tuple[int, ...]
    reason: Reason


@dataclass(frozen=True, slots=True)
class JobSucceeded:
    """Every task of a job succeeded."""

    job_id: JobId


@dataclass(frozen=True, slots=True)
class JobFailed:
    """A job failed."""

    job_id: JobId
    failure: Failure


@dataclass(frozen=True, slots=True)
class JobCancelled:
    """A job was cancelled."""

    job_id: JobId
    note: str


@dataclass(frozen=True, slots=True)
class JobErased:
    """The data of an ended job were erased: the keys that open them are shredded."""

    job_id: JobId
    key_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeysShredded:
    """The keys of erased jobs, and the jobs' outcomes, are gone."""

    job_ids: tuple[JobId, ...]


@dataclass(frozen=True, slots=True)
class InferencesRecorded:
    """Batches of inference were recorded."""

    batches: tuple[InferenceBatch, ...]


NodeChange: TypeAlias = (
    NodeObserved
    | NodeSuspected
    | NodeRecovered
    | NodeLost
    | NodeLeaveStarted
    | NodeLeft
    | NodeDrainStarted
    | NodeDrainEnded
)
"""What happens to a node that has joined."""
NodeEvent: TypeAlias = NodeJoined | NodeChange
JobEvent: TypeAlias = (
    JobSubmitted
    | TasksPlanned
    | TasksAssigned
    | TasksSucceeded
    | AttemptFailed
    | AttemptsLost
    | JobSucceeded
    | JobFailed
    | JobCancelled
    | JobErased
)
Event: TypeAlias = (
    TermStarted
    | SigningKeyChanged
    | TermEnded
    | SegmentClosed
    | SegmentOpened
    | ModelRegistered
    | NodeEvent
    | JobEvent
    | KeysShredded
    | InferencesRecorded
    | ModelChange
)

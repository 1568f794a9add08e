"""Inputs: a client's call, a node's report, a timer, an operator's act. As in command.proto. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from coordinator.core.inference import InferenceBatch
from coordinator.core.model import Failure, JobSpec, Model, Needs, NodeSpec, TaskOutput
from hivefold.ids import BootId, Digest, JobId, ModelName, NodeId, RequestId


@dataclass(frozen=True, slots=True)
class StartTerm:
    """Begin to lead."""

    coordinator_id: str
    code_version: str


@dataclass(frozen=True, slots=True)
class ChangeSigningKey:
    """Sign checkpoints with another key, which the one before it endorses."""

    key_id: str
    public_key: bytes
    previous_key_id: str
    endorsement: bytes
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class EndTerm:
    """Stop leading, so that another coordinator may begin at once."""

    note: str = ""


@dataclass(frozen=True, slots=True)
class CloseSegment:
    """End a segment of the log that is full."""

    segment: int


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """Go on in the next segment of the log."""

    segment: int


@dataclass(frozen=True, slots=True)
class RegisterModel:
    """Register a model version whose bytes are stored and checked; version 0 means the next."""

    model: Model


@dataclass(frozen=True, slots=True)
class SubmitJob:
    """Accept a job."""

    job_id: JobId
    request_id: RequestId
    spec: JobSpec
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class CancelJob:
    """Cancel a job."""

    job_id: JobId
    note: str = ""


@dataclass(frozen=True, slots=True)
class JoinNode:
    """Let a node join."""

    spec: NodeSpec


@dataclass(frozen=True, slots=True)
class ObserveNode:
    """Note what a node's heartbeat says."""

    node_id: NodeId
    boot_id: BootId
    loaded_models: tuple[Digest, ...]
    memory_available_bytes: int
    cpu_utilization_percent: int


@dataclass(frozen=True, slots=True)
class ReportSilence:
    """Note that a node has been silent (0 ms: it was heard again)."""

    node_id: NodeId
    boot_id: BootId
    silent_ms: int
    suspect_after_ms: int
    lost_after_ms: int


@dataclass(frozen=True, slots=True)
class LeaveNode:
    """Let a node leave: begin to, or be gone."""

    node_id: NodeId
    boot_id: BootId
    gone: bool = False


@dataclass(frozen=True, slots=True)
class DrainNode:
    """Give a node no new work."""

    node_id: NodeId
    note: str = ""


@dataclass(frozen=True, slots=True)
class UndrainNode:
    """Give a node work again."""

    node_id: NodeId


@dataclass(frozen=True, slots=True)
class OutcomeReport:
    """A node's answer to one attempt."""

    job_id: JobId
    task: int
    attempt: int
    duration_us: int
    row_count: int
    result_sequence: int
    failure: Failure | None = None
    output: TaskOutput | None = None


@dataclass(frozen=True, slots=True)
class OutcomeColumns:
    """Answers of one job's attempts that succeeded without output; entries belong together."""

    job_id: JobId
    tasks: tuple[int, ...]
    attempts: tuple[int, ...]
    durations_us: tuple[int, ...]
    row_counts: tuple[int, ...]
    result_sequences: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReportOutcomes:
    """Record what a node answered."""

    node_id: NodeId
    columns: tuple[OutcomeColumns, ...] = ()
    reports: tuple[OutcomeReport, ...] = ()


@dataclass(frozen=True, slots=True)
class EraseJob:
    """Erase the data of a job that has ended; `key_ids` open them.

    `input_root` names its input ("": none); `past` says that it ended and is in the log alone.
    """

    job_id: JobId
    key_ids: tuple[str, ...]
    input_root: str = ""
    past: bool = False


@dataclass(frozen=True, slots=True)
class ConfirmKeysShredded:
    """Note that the keys of erased jobs, and the jobs' outcomes, are gone."""

    job_ids: tuple[JobId, ...]


@dataclass(frozen=True, slots=True)
class RecordInferences:
    """Record what nodes stored of their inference, in the order of its positions."""

    batches: tuple[InferenceBatch, ...]


@dataclass(frozen=True, slots=True)
class PlaceTasks:
    """Give waiting tasks to nodes with room."""


@dataclass(frozen=True, slots=True)
class ExpireJobs:
    """Fail the jobs whose time is over."""


@dataclass(frozen=True, slots=True)
class MoveAlias:
    """Let an alias stand for a version, 0: for none; `expected_version` is what it must stand for now."""

    name: ModelName
    alias: str
    version: int
    expected_version: int | None
    note: str
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class SetResidency:
    """Say on how many nodes, and on which, a version is to be kept loaded; None leaves it as it is."""

    model: str
    replica_count: int | None
    pinned: bool | None
    needs: Needs | None
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class RemoveModel:
    """Take a version, "name@version", out of the registry; `force`: whatever refers to it."""

    model: str
    force: bool
    note: str
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class ReportReplica:
    """Note that a node could not load a model that it is to keep."""

    node_id: NodeId
    boot_id: BootId
    digest: Digest
    failure: Failure


@dataclass(frozen=True, slots=True)
class PlaceReplicas:
    """Choose nodes for replicas that are missing."""


@dataclass(frozen=True, slots=True)
class ConfirmArtifactRemoved:
    """Note that the bytes of removed models are gone."""

    root: Digest


CommandBody: TypeAlias = (
    StartTerm
    | ChangeSigningKey
    | EndTerm
    | CloseSegment
    | OpenSegment
    | RegisterModel
    | SubmitJob
    | CancelJob
    | EraseJob
    | ConfirmKeysShredded
    | JoinNode
    | ObserveNode
    | ReportSilence
    | LeaveNode
    | DrainNode
    | UndrainNode
    | ReportOutcomes
    | RecordInferences
    | PlaceTasks
    | ExpireJobs
    | MoveAlias
    | SetResidency
    | RemoveModel
    | ReportReplica
    | PlaceReplicas
    | ConfirmArtifactRemoved
)


@dataclass(frozen=True, slots=True)
class Command:
    """An input and the coordinator's clock when it took it (Unix microseconds)."""

    time_us: int
    body: CommandBody

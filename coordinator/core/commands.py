"""Inputs: a client's call, a node's report, a timer, an operator's act. As in command.proto. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from coordinator.core.inference import InferenceBatch
from coordinator.core.model import Failure, JobSpec, Model, NodeSpec, TaskOutput
from hivefold.ids import BootId, Digest, JobId, NodeId, RequestId


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
class RecordInferences:
    """Record what nodes stored of their inference, in the order of its positions."""

    batches: tuple[InferenceBatch, ...]


@dataclass(frozen=True, slots=True)
class PlaceTasks:
    """Give waiting tasks to nodes with room."""


@dataclass(frozen=True, slots=True)
class ExpireJobs:
    """Fail the jobs whose time is over."""


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
)


@dataclass(frozen=True, slots=True)
class Command:
    """An input and the coordinator's clock when it took it (Unix microseconds)."""

    time_us: int
    body: CommandBody

"""The coordinator's state and the values it is made of. Frozen; maps are persistent. Pure.

Times are Unix microseconds (`*_us`), 0 where there is none. Pairs of labels are sorted tuples. What
changes with every event (State, Job, Node) is a NamedTuple: copied with a change five times as fast as
a frozen dataclass, and replay does little else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from immutables import Map

from coordinator.core.registered import (
    Alias,
    BlobRef,
    Failure,
    Model,
    ModelRequest,
    Needs,
    Pairs,
    Residency,
    TensorSpec,
    sorted_pairs,
)
from hivefold.errors import FieldViolation, Reason
from hivefold.ids import AliasRef, BootId, Digest, JobId, ModelName, ModelRef, NodeId, RequestId

__all__ = ["BlobRef", "Failure", "Model", "Needs", "Pairs", "TensorSpec", "sorted_pairs"]


class Priority(StrEnum):
    """Who goes first."""

    CONTROL = "CONTROL"
    INTERACTIVE = "INTERACTIVE"
    BATCH = "BATCH"


class JobState(StrEnum):
    """Where a job stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def final(self) -> bool:
        """Whether it can still change."""
        return self in _FINAL


_FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


class NodeState(StrEnum):
    """Where a node stands."""

    ONLINE = "ONLINE"
    SUSPECTED = "SUSPECTED"
    LOST = "LOST"
    LEFT = "LEFT"
    LEAVING = "LEAVING"

    @property
    def gone(self) -> bool:
        """Whether the node has no work and gets none."""
        return self in {NodeState.LOST, NodeState.LEFT}


class NanPolicy(StrEnum):
    """What to do with a row that holds NaN."""

    REJECT = "REJECT"
    ALLOW = "ALLOW"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A command was refused: nothing is recorded. Says what to do."""

    reason: Reason
    message: str
    metadata: Pairs = ()
    violations: tuple[FieldViolation, ...] = ()


@dataclass(frozen=True, slots=True)
class DataSet:
    """Rows of equal shape and type. `path` is "" when the bytes are stored in the fleet."""

    content: BlobRef
    path: str
    data_type: str
    row_shape: tuple[int, ...]
    row_count: int
    data_offset_bytes: int = 0
    origin: str = ""


@dataclass(frozen=True, slots=True)
class InferSpec:
    """Run every row of a data set through a model."""

    model: str
    data_set: DataSet
    outputs: tuple[str, ...] = ()
    nan_policy: NanPolicy = NanPolicy.REJECT
    target_task_us: int = 0
    batch_rows: int = 0


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """Run tasks that do nothing."""

    task_count: int
    task_duration_us: int = 0


JobKind: TypeAlias = InferSpec | ProbeSpec


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a client asks for."""

    kind: JobKind
    source: str = ""
    priority: Priority = Priority.BATCH
    labels: Pairs = ()
    response_subject: str = ""
    timeout_us: int = 0
    needs: Needs = Needs()
    max_attempts: int = 0


@dataclass(frozen=True, slots=True)
class TensorPart:
    """One output tensor of a task; shape with the row dimension first."""

    name: str
    data_type: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """What a task produced; `blob` is None when the bytes are inline in the results stream."""

    tensors: tuple[TensorPart, ...]
    blob: BlobRef | None
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that a node has."""

    product: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What a node says of itself."""

    node_id: NodeId
    boot_id: BootId
    slot_count: int
    labels: Pairs = ()
    cpu_count: int = 0
    memory_bytes: int = 0
    gpus: tuple[Gpu, ...] = ()
    grpc_address: str = ""
    code_version: str = ""
    host_name: str = ""
    pid: int = 0


class Attempt(NamedTuple):
    """An attempt that is with a node."""

    number: int
    node_id: NodeId
    boot_id: BootId


class Done(NamedTuple):
    """The attempt that completed a task."""

    number: int
    node_id: NodeId
    duration_us: int
    row_count: int
    result_sequence: int
    output: TaskOutput | None


class Trouble(NamedTuple):
    """What went wrong with a task so far: the last attempt's number, failures by node, losses, returns."""

    number: int
    failures: tuple[tuple[NodeId, Failure], ...]
    losses: int
    lost_nodes: tuple[NodeId, ...]
    returns: int = 0


class Rows(NamedTuple):
    """The rows of a task."""

    first_row: int
    row_count: int


class Rate(NamedTuple):
    """Measured speed of a kind of work: exponentially weighted means over finished attempts."""

    task_us: float
    rows_per_s: float
    samples: int
    sequence: int = 0  # when it was last measured: the one unused for longest is let go first


class PastRequest(NamedTuple):
    """What is kept of a job that is no longer in the state: enough to answer a repeat of its request."""

    job_id: JobId
    fingerprint: int  # of its spec: see digest.spec_fingerprint


class Job(NamedTuple):
    """A job and its tasks.

    Tasks are numbered from 0. `fresh` is the first that was never assigned: fresh tasks are
    [fresh, planned). A task is in exactly one of: fresh, waiting (to be tried again), running, done.
    """

    job_id: JobId
    request_id: RequestId
    spec: JobSpec
    model: Model | None
    state: JobState
    create_time_us: int
    deadline_time_us: int
    traceparent: str
    create_sequence: int
    sequence: int
    start_time_us: int = 0
    end_time_us: int = 0
    planned: int = 0
    plan_complete: bool = False
    rows_planned: int = 0
    rows: Map[int, Rows] = Map()
    fresh: int = 0
    waiting: Map[int, int] = Map()
    """Task to the earliest time of its next attempt."""
    running: Map[int, Attempt] = Map()
    done: Map[int, Done] = Map()
    troubles: Map[int, Trouble] = Map()
    rows_done: int = 0
    attempts_failed: int = 0
    attempts_lost: int = 0
    failure: Failure | None = None
    stopping: tuple[NodeId, ...] = ()
    """Nodes that still had attempts when the job ended early: they are told to stop."""


class Node(NamedTuple):
    """A node as the log knows it."""

    spec: NodeSpec
    state: NodeState
    draining: bool
    join_time_us: int
    sequence: int
    loaded_models: tuple[Digest, ...] = ()
    memory_available_bytes: int = 0
    cpu_utilization_percent: int = 0
    observe_time_us: int = 0
    outstanding: int = 0
    tasks_succeeded: int = 0


class SigningKey(NamedTuple):
    """A key that signs checkpoints, as protos/hivefold/v1/event.proto has it."""

    key_id: str
    public_key: bytes
    previous_key_id: str
    endorsement: bytes
    request_id: RequestId


class Erasure(NamedTuple):
    """When the data of a job were erased, and the keys that have to be gone."""

    job_id: JobId
    time_us: int
    key_ids: tuple[str, ...]
    shredded: bool = False
    """Whether they are gone."""


class State(NamedTuple):
    """What the coordinator keeps in mind: the fold over the log up to `sequence`.

    Bounded: open work, and of what has ended the latest (see retire.py); the log has the rest.
    """

    sequence: int = 0
    time_us: int = 0
    term: int = 0
    term_sequence: int = 0
    coordinator_id: str = ""
    models: Map[ModelRef, Model] = Map()
    latest: Map[ModelName, int] = Map()
    """Of the versions that are registered, the highest."""
    nodes: Map[NodeId, Node] = Map()
    jobs: Map[JobId, Job] = Map()
    """Open jobs, and those in `ended`."""
    open_jobs: Map[JobId, int] = Map()
    """Jobs that have not ended, with the sequence of their submit."""
    requests: Map[RequestId, JobId] = Map()
    """Of the jobs in `jobs`."""
    rates: Map[str, Rate] = Map()
    """By model digest, or "probe:<task duration>": see rate_key."""
    signing_keys: tuple[SigningKey, ...] = ()
    """The latest, oldest first: the last one signs."""
    ended: Map[int, JobId] = Map()
    """The latest jobs that ended, numbered in that order; the next number is `ended_total`."""
    ended_total: int = 0
    ended_tasks: int = 0
    """Tasks that the jobs in `ended` hold in memory."""
    retired_sequence: int = 0
    """Where the latest job ended that is no longer in `jobs`; 0 while none has gone."""
    past_requests: Map[RequestId, PastRequest] = Map()
    """The latest requests whose jobs are no longer in `jobs`."""
    past_order: Map[int, RequestId] = Map()
    """The same, numbered in the order in which their jobs went; the next number is `past_total`."""
    past_total: int = 0
    erasures: tuple[Erasure, ...] = ()
    """All whose keys are still to go, and of the others the latest; ERASURES_KEPT in all, oldest first."""
    inference_position: int = 0
    """Up to where what nodes stored of their inference is recorded."""
    removed: Map[ModelRef, Model] = Map()
    """Versions that were removed: their numbers are never given again, and jobs of the past name them."""
    aliases: Map[AliasRef, Alias] = Map()
    residencies: Map[ModelRef, Residency] = Map()
    kept: Map[NodeId, int] = Map()
    """Of nodes that were told what to keep loaded, where that last changed: the order that they are owed."""
    discarded: Map[Digest, ModelRef] = Map()
    """Roots of bytes that are still stored and only removed models name."""
    model_requests: tuple[ModelRequest, ...] = ()
    """The latest MODEL_REQUESTS_KEPT, oldest first."""

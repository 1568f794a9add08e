"""What nodes and the coordinator say to each other, apart from the log. Ports of few methods.

Subjects (account NODES):
    work.<node>                               WorkBatch     stream HF_WORK (memory), one durable consumer a node
    results.<node>.<job>.<task>.<attempt>     Outcome       stream HF_RESULTS (file), one durable consumer
    express.work.<node>, express.results.<node>.<job>.<task>.<attempt>
                                              WorkBatch, Outcome   core NATS: the same, there sooner
    control.<node>                            CancelWork    core NATS
    heartbeat.<node>                          Heartbeat     core NATS
    fleet.pulse                               Pulse         core NATS
    telemetry.<node>                          Reading       core NATS
    inference.<node>.<boot>.<number>          InferenceBatch   stream HF_INFERENCE (file, the oldest make room)
    events.job.<job>, events.node.<node>      JobEvent, NodeEvent   stream HF_EVENTS (file, limited age)
    checkpoint.log                            SignedCheckpoint   stream HF_CHECKPOINTS (file, the oldest make room)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """A message on a subject. Header names are lower case."""

    subject: str
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Subscription(Protocol):
    """A running subscription."""

    async def stop(self) -> None:
        """Ends it; the handler is not called again afterwards."""
        ...


class Signals(Protocol):
    """Lossy publish and subscribe (core NATS): heartbeats, pulses, telemetry, control."""

    @property
    def connected(self) -> bool:
        """Whether the broker connection is up now."""
        ...

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Calls `callback` after each reconnect: whatever the broker kept in memory may be gone."""
        ...

    def publish(self, message: Message) -> None:
        """Sends at most once, now; silently dropped while disconnected."""
        ...

    async def subscribe(self, subject: str, handler: Callable[[Message], None]) -> Subscription:
        """Calls `handler` for each message; survives reconnects. The handler MUST return at once."""
        ...


class WorkSender(Protocol):
    """The coordinator's end of the work stream."""

    async def prepare(self, node_id: str) -> None:
        """Makes sure that the stream and the node's durable consumer exist. Idempotent."""
        ...

    async def send(self, node_id: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Publishes one WorkBatch and waits until the stream has it. Raises BrokerUnavailableError."""
        ...

    async def forget(self, node_id: str) -> None:
        """Drops the node's waiting work and its consumer. Idempotent."""
        ...


class Delivery(Protocol):
    """A WorkBatch that a node was handed; unanswered it comes again after WORK_ACK_WAIT_S."""

    @property
    def data(self) -> bytes:
        """The WorkBatch."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers, names in lower case."""
        ...

    async def acknowledge(self) -> None:
        """Done: it will not come again."""
        ...

    async def in_progress(self) -> None:
        """Still at it: starts the wait anew."""
        ...

    async def give_back(self) -> None:
        """Not done: it may come again at once."""
        ...


class WorkReceiver(Protocol):
    """A node's end of the work stream."""

    def deliveries(self) -> AsyncIterator[Delivery]:
        """Yields deliveries for ever; re-binds by itself after reconnects and lost consumers."""
        ...

    async def close(self) -> None:
        """Ends the iteration."""
        ...


@dataclass(frozen=True, slots=True)
class ResultMessage:
    """An outcome as stored: its position in the results stream, its subject and bytes."""

    sequence: int
    subject: str
    data: bytes


class ResultSender(Protocol):
    """A node's end of the results stream."""

    async def send(self, outcomes: Sequence[tuple[str, bytes]]) -> None:
        """Stores the outcomes (subject, bytes) durably, in atomic batches of at most RESULTS_BATCH.

        A subject that already holds an outcome keeps its first one; that is not an error.
        Keeps trying while the broker is away; returns only when every outcome is stored.
        """
        ...


class ResultReceiver(Protocol):
    """The coordinator's end of the results stream."""

    def batches(self) -> AsyncIterator[Sequence[ResultMessage]]:
        """Yields what has come since, in order, for ever; unacknowledged results come again after a restart."""
        ...

    async def acknowledge(self, up_to_sequence: int) -> None:
        """Everything up to this position is recorded: it will not come again."""
        ...

    async def get(self, sequence: int) -> ResultMessage:
        """The outcome stored at a position. Raises NotFoundError."""
        ...

    async def purge_job(self, job_id: str) -> None:
        """Drops the stored outcomes of a job, as far as they are acknowledged: others would take more with them."""
        ...

    async def is_crowded(self) -> bool:
        """Whether little room is left for outcomes: once there is none, nodes can store no more and no job ends."""
        ...

    async def drop_oldest(self, before: int) -> int:
        """Drops the oldest quarter of the outcomes, of those that are acknowledged and before a position; how many."""
        ...


class EventSender(Protocol):
    """The public event stream."""

    async def send(self, events: Sequence[tuple[str, bytes, int]]) -> None:
        """Stores events (subject, bytes, record sequence) in order; returns when they are stored."""
        ...

    async def last_sequence(self) -> int:
        """Record sequence of the last stored event; 0 when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Kept:
    """A message of the checkpoint stream: its place there, which only grows, and its bytes."""

    index: int
    data: bytes


class CheckpointReader(Protocol):
    """A reader of the checkpoint stream."""

    async def last(self) -> Kept | None:
        """The last checkpoint; None when there is none. Raises BrokerUnavailableError."""
        ...

    async def next(self, index: int) -> Kept | None:
        """The first one at `index` or after; None when there is none. Raises BrokerUnavailableError."""
        ...


class CheckpointStream(CheckpointReader, Protocol):
    """The coordinator's end of the checkpoint stream."""

    async def store(self, data: bytes, *, after: int) -> int:
        """Stores a checkpoint right after the one at `after` (0: as the first); its index.

        Raises FencedError when another was stored meanwhile, BrokerUnavailableError when that is not known.
        """
        ...

"""What all services stand on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from coordinator.artifacts import Artifacts
from coordinator.batch import Accepted
from coordinator.checkpoints import Checkpointer
from coordinator.core.commands import CommandBody
from coordinator.core.model import Job, Rejected, State
from coordinator.erasing import Eraser
from coordinator.followers import Followed
from coordinator.history import PastJobs
from coordinator.index import JobIndex
from coordinator.job_keys import JobKeys
from coordinator.segment_care import Place
from coordinator.standby import Standby
from coordinator.writer import Writer
from hivefold import limits, observe
from hivefold.blobs.port import ChunkStore
from hivefold.bus.port import CheckpointReader, ResultReceiver
from hivefold.clock import Clock
from hivefold.entropy import Entropy
from hivefold.errors import NotLeaderError, ProofError
from hivefold.ids import JobId, NodeId
from hivefold.log.port import EventLog
from hivefold.rpc import error_for
from hivefold.v1 import telemetry_pb2, work_pb2


class Hearing(Protocol):
    """What was last heard of nodes."""

    def heard_time_us(self, node_id: NodeId) -> int:
        """When the node's last heartbeat came (Unix microseconds); 0 if none did."""
        ...

    def reading(self, node_id: NodeId) -> telemetry_pb2.Reading | None:
        """The node's latest reading, if one came."""
        ...

    def refusal(self, node_id: NodeId) -> str:
        """Why the node refuses this coordinator; empty when it does not."""
        ...

    def models_in_progress(self, node_id: NodeId) -> Sequence[work_pb2.ModelProgress]:
        """The models that the node fetches, loads or could not load."""
        ...


class Lead(Protocol):
    """A term, as far as services need it."""

    @property
    def writer(self) -> Writer:
        """The term's writer."""
        ...

    @property
    def presence(self) -> Hearing:
        """Who is there."""
        ...

    @property
    def checkpoints(self) -> Checkpointer | None:
        """What signs the log; None where it is not signed."""
        ...

    @property
    def artifacts(self) -> Artifacts:
        """What removes the bytes of removed models."""
        ...

    @property
    def eraser(self) -> Eraser:
        """What shreds the keys of erased jobs."""
        ...


class Nobody:
    """What is heard of nodes by who does not listen: nothing."""

    def heard_time_us(self, node_id: NodeId) -> int:
        """Never."""
        return 0

    def reading(self, node_id: NodeId) -> telemetry_pb2.Reading | None:
        """None."""
        return None

    def refusal(self, node_id: NodeId) -> str:
        """Nothing is known."""
        return ""

    def models_in_progress(self, node_id: NodeId) -> Sequence[work_pb2.ModelProgress]:
        """None."""
        return ()


@dataclass(slots=True)
class Backing:
    """The coordinator's ends of log, bus and blobs; the term while it leads, the standby while it follows."""

    log: EventLog
    results: ResultReceiver
    job_keys: JobKeys
    clock: Clock
    entropy: Entropy
    signed: CheckpointReader
    inferences: ResultReceiver | None = None
    """What nodes inferred, batch by batch; None where that is not recorded."""
    places: Callable[[], Awaitable[Sequence[Place]]] | None = None
    """Where the segments of the log are; None where it has none."""
    durability: str = ""
    coordinator_id: str = ""
    leader: Callable[[], str] = lambda: ""
    """The leader's gRPC address; empty while none is known."""
    hand_over: Callable[[], Awaitable[None]] | None = None
    """Ends this coordinator's term; None where nobody else could lead."""
    index: JobIndex | None = None
    """The list of jobs that the state no longer has."""
    past: PastJobs = field(init=False)
    """Jobs that the state no longer has."""
    _lead: Lead | None = field(default=None)
    _standby: Standby | None = field(default=None)

    def __post_init__(self) -> None:
        self.past = PastJobs(self.log)

    @property
    def chunks(self) -> ChunkStore:
        """Stored content."""
        return self.job_keys.chunks

    def lead(self, lead: Lead) -> None:
        """From now on services decide and answer."""
        self._lead, self._standby = lead, None

    def follow(self, standby: Standby) -> None:
        """From now on services answer what can be read, from a state that follows the leader's."""
        self._lead, self._standby = None, standby

    @property
    def checkpoints(self) -> Checkpointer:
        """What signs the log. Raises NotLeaderError, ProofError where it is not signed."""
        checkpoints = self._term().checkpoints
        if checkpoints is None:
            raise ProofError("this coordinator does not sign its log")
        return checkpoints

    @property
    def artifacts(self) -> Artifacts:
        """What removes the bytes of removed models. Raises NotLeaderError."""
        return self._term().artifacts

    @property
    def eraser(self) -> Eraser:
        """What shreds the keys of erased jobs. Raises NotLeaderError."""
        return self._term().eraser

    @property
    def standby(self) -> Standby | None:
        """What is followed; None while this coordinator leads."""
        return self._standby

    @property
    def source(self) -> Followed:
        """Where the state is read and followed. Raises NotLeaderError before there is one."""
        return self._standby or self._term().writer

    async def source_at(self, sequence: int) -> Followed:
        """The source once it holds the record at `sequence`, or the log turns out to end before it.

        Raises UnavailableError when a standby lags too far, NotLeaderError where somebody else wrote that record: a
        leader that stood still does not call made up what its successor acknowledged.
        """
        if self._standby is not None:
            await self._standby.reach(sequence)
        elif self.source.state.sequence < sequence:
            end = (await self.log.head()).sequence
            if self.source.state.sequence < sequence <= end:
                raise NotLeaderError("this coordinator does not know the log's end: another may lead; ask again")
        return self.source

    @property
    def writer(self) -> Writer:
        """The term's writer. Raises NotLeaderError before there is one."""
        return self._term().writer

    @property
    def hearing(self) -> Hearing:
        """What was last heard of nodes: only the leader listens."""
        return self._lead.presence if self._lead is not None else Nobody()

    @property
    def state(self) -> State:
        """The durable state, as far as it is known here.

        Raises NotLeaderError before there is one, and where a standby has heard nothing of the log's end for too long.
        """
        if self._standby is not None and (stale_ms := self._standby.stale_ms) > limits.STANDBY_STALE_MS:
            raise NotLeaderError(
                f"this standby has not seen the end of the log for {stale_ms / 1000:.1f} s: ask the leader",
                metadata={"leader": address} if (address := self.leader()) else {},
            )
        return self.source.state

    async def state_that(self, knows: Callable[[State], bool]) -> State:
        """The state; where it does not know what is asked for, a standby's is first followed to the log's end.

        So what was acknowledged is never said not to be: one that may not be the leader any more does not say it
        either. Raises NotLeaderError, UnavailableError.
        """
        state = self.state
        if knows(state):
            return state
        if self._standby is None:
            if not self.writer.leading:
                raise NotLeaderError("this coordinator may not be the leader any more; ask again in a moment")
            return state
        await self._standby.reach_end()
        return self.state

    async def job(self, job_id: JobId) -> Job:
        """A job of any age. Raises NotFoundError, and as PastJobs.find does where it ended long ago."""
        state = await self.state_that(lambda known: job_id in known.jobs)
        return state.jobs.get(job_id) or await self.past.find(job_id, state)

    async def decide(self, body: CommandBody) -> Accepted:
        """Has a command decided and recorded. A refusal of the core is raised as the error that it stands for.

        Raises HivefoldError.
        """
        answer = await self.writer.execute(body, traceparent=observe.current_traceparent())
        if isinstance(answer, Rejected):
            raise error_for(answer.reason, answer.message, dict(answer.metadata), answer.violations)
        return answer

    def _term(self) -> Lead:
        if self._lead is not None:
            return self._lead
        address = self.leader()
        if address:
            raise NotLeaderError(f"this coordinator follows; {address} leads: ask there", metadata={"leader": address})
        raise NotLeaderError("this coordinator does not lead, and none is known to; try again in a moment")

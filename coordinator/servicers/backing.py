"""What all services stand on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from coordinator.core.commands import CommandBody
from coordinator.core.model import Rejected, State
from coordinator.writer import Accepted, Writer
from hivefold import observe
from hivefold.blobs.port import ChunkStore
from hivefold.bus.port import ResultReceiver
from hivefold.clock import Clock
from hivefold.entropy import Entropy
from hivefold.errors import NotLeaderError
from hivefold.ids import NodeId
from hivefold.log.port import EventLog
from hivefold.rpc import error_for
from hivefold.v1 import telemetry_pb2


class Hearing(Protocol):
    """What was last heard of nodes."""

    def heard_time_us(self, node_id: NodeId) -> int:
        """When the node's last heartbeat came (Unix microseconds); 0 if none did."""
        ...

    def reading(self, node_id: NodeId) -> telemetry_pb2.Reading | None:
        """The node's latest reading, if one came."""
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


@dataclass(slots=True)
class Backing:
    """The coordinator's ends of log, bus and blobs, and the term once it has begun."""

    log: EventLog
    results: ResultReceiver
    chunks: ChunkStore
    clock: Clock
    entropy: Entropy
    durability: str = ""
    _lead: Lead | None = field(default=None)

    def lead(self, lead: Lead) -> None:
        """From now on services decide and answer."""
        self._lead = lead

    @property
    def writer(self) -> Writer:
        """The term's writer. Raises NotLeaderError before there is one."""
        return self._term().writer

    @property
    def hearing(self) -> Hearing:
        """What was last heard of nodes. Raises NotLeaderError before there is a term."""
        return self._term().presence

    @property
    def state(self) -> State:
        """The durable state. Raises NotLeaderError before there is a term."""
        return self._term().writer.state

    async def decide(self, body: CommandBody) -> Accepted:
        """Has a command decided and recorded. A refusal of the core is raised as the error that it stands for.

        Raises HivefoldError.
        """
        answer = await self.writer.execute(body, traceparent=observe.current_traceparent())
        if isinstance(answer, Rejected):
            raise error_for(answer.reason, answer.message, dict(answer.metadata), answer.violations)
        return answer

    def _term(self) -> Lead:
        if self._lead is None:
            raise NotLeaderError("this coordinator is starting and does not lead yet; try again in a moment")
        return self._lead

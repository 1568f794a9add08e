"""Hears heartbeats, lets nodes join and leave, notices silence, and sends the coordinator's own pulse."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from google.protobuf.message import DecodeError

from coordinator.checkpoints import Checkpointer
from coordinator.core.commands import JoinNode, LeaveNode, ObserveNode, ReportReplica, ReportSilence
from coordinator.core.decide_nodes import is_material
from coordinator.core.events import ModelRegistered
from coordinator.core.model import Node, NodeState, Rejected
from coordinator.core.model_events import AliasMoved, AliasRemoved, ModelRemoved
from coordinator.dispatch import Dispatcher
from coordinator.followers import Committed
from coordinator.intake import bounded
from coordinator.wire.values import failure_from_proto, node_spec_from_proto
from coordinator.writer import Writer
from hivefold import limits
from hivefold.bus.port import Message, Signals, WorkSender
from hivefold.clock import Clock
from hivefold.errors import HivefoldError, LogError, NotLeaderError
from hivefold.ids import Digest, NodeId, is_digest, is_name
from hivefold.models.limits import BEATS_BEFORE_REORDER, NODE_KEEPS
from hivefold.v1 import telemetry_pb2, work_pb2

_log = structlog.get_logger(__name__)
_NAMES_CHANGED: Final = (ModelRegistered, ModelRemoved, AliasMoved, AliasRemoved)


@dataclass(slots=True)
class _Heard:
    """What was last heard of a node."""

    heard_ms: int
    time_us: int
    beat: work_pb2.Heartbeat | None = None
    idle_beats: int = 0
    idle_sequence: int = 0
    stale_beats: int = 0
    """Heartbeats one after the other that named an older order of what to keep."""
    reading: telemetry_pb2.Reading | None = None


@dataclass(frozen=True, slots=True)
class PresenceSettings:
    """From when on silence counts, in milliseconds, and what the pulse says."""

    grpc_address: str
    suspect_after_ms: int = limits.SUSPECT_AFTER_MS
    lost_after_ms: int = limits.LOST_AFTER_MS
    heartbeat_ms: int = limits.HEARTBEAT_MS


@dataclass(slots=True)
class Presence:
    """Who is there. Silence is measured on this coordinator's monotonic clock, and never while it was deaf itself."""

    writer: Writer
    signals: Signals
    sender: WorkSender
    dispatcher: Dispatcher
    clock: Clock
    settings: PresenceSettings
    checkpoints: Checkpointer | None = None
    _heard: dict[NodeId, _Heard] = field(default_factory=dict)
    _dirty: dict[NodeId, None] = field(default_factory=dict)
    """Whose heartbeats say something new, in the order in which they came."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)
    _models_sequence: int = 0
    """Where a name last came to stand for another model; a new leader takes none of them for granted."""

    def __post_init__(self) -> None:
        self._models_sequence = self.writer.state.sequence
        self.writer.on_commit(self._on_commit)

    def heard_time_us(self, node_id: NodeId) -> int:
        """When the node's last heartbeat came (Unix microseconds); 0 if none did."""
        heard = self._heard.get(node_id)
        return heard.time_us if heard else 0

    def reading(self, node_id: NodeId) -> telemetry_pb2.Reading | None:
        """The node's latest reading, if one came."""
        heard = self._heard.get(node_id)
        return heard.reading if heard else None

    def refusal(self, node_id: NodeId) -> str:
        """Why the node refuses this coordinator; empty when it does not."""
        heard = self._heard.get(node_id)
        return heard.beat.refusal if heard and heard.beat else ""

    def models_in_progress(self, node_id: NodeId) -> Sequence[work_pb2.ModelProgress]:
        """The models that the node fetches, loads or could not load, as its last heartbeat says."""
        heard = self._heard.get(node_id)
        return heard.beat.models_in_progress if heard and heard.beat else ()

    async def run(self) -> None:
        """Listens and watches until it is cancelled. Raises NotLeaderError."""
        await self.signals.subscribe("heartbeat.*", self._on_heartbeat)
        await self.signals.subscribe("telemetry.*", self._on_reading)
        self.signals.on_reconnect(self._forgive)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._attend())

    def _on_heartbeat(self, message: Message) -> None:
        beat = work_pb2.Heartbeat()
        try:
            beat.ParseFromString(message.data)
        except DecodeError:
            return
        node_id = NodeId(message.subject.partition(".")[2])
        if beat.spec.node_id != node_id or not self._may_hear(node_id):
            return
        heard = self._heard.setdefault(node_id, _Heard(0, 0))
        if beat.refusal and beat.refusal != self.refusal(node_id):
            _log.error("node refuses this coordinator", node=node_id, reason="PROOF_FAILED", why=beat.refusal)
        heard.heard_ms, heard.time_us, heard.beat = self.clock.monotonic_ms(), self.clock.now_us(), beat
        self._dirty[node_id] = None
        self._wake.set()

    def _may_hear(self, node_id: NodeId) -> bool:
        """Whether to keep in mind who this is: bounded, however many call themselves nodes."""
        if node_id in self._heard or node_id in self.writer.state.nodes:
            return True
        return is_name(node_id) and len(self._heard) < limits.NODES_HEARD

    def _on_reading(self, message: Message) -> None:
        heard = self._heard.get(NodeId(message.subject.partition(".")[2]))
        if heard is None:
            return
        reading = telemetry_pb2.Reading()
        try:
            reading.ParseFromString(message.data)
        except DecodeError:
            return
        heard.reading = reading

    async def _attend(self) -> None:
        """Turns heartbeats into commands where they say something new."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._dirty:
                del self._dirty[node_id := next(iter(self._dirty))]
                try:
                    await self._attend_node(node_id, self._heard[node_id])
                except (NotLeaderError, LogError):
                    raise
                except HivefoldError as error:
                    # One node's heartbeat, however odd, is no reason for all others to lose their coordinator.
                    _log.warning("heartbeat not recorded", node=node_id, reason=error.reason, error=str(error))

    async def _attend_node(self, node_id: NodeId, heard: _Heard) -> None:
        beat = heard.beat
        if beat is None:
            return
        node = self.writer.state.nodes.get(node_id)
        if node is None or node.state.gone or node.spec.boot_id != beat.spec.boot_id:
            if not beat.leaving:
                await self._join(node_id, beat)
            return
        if beat.leaving:
            await self._leave(node, beat)
            return
        if node.state is NodeState.SUSPECTED:
            await self.writer.execute(self._silence(node, 0))
        observation = ObserveNode(
            node_id,
            node.spec.boot_id,
            tuple(Digest(digest) for digest in beat.loaded_models if is_digest(digest))[: limits.MODEL_FILES_KEPT],
            beat.memory_available_bytes,
            _percent(beat.cpu_utilization_ratio),
        )
        if is_material(node, observation, self.clock.now_us()):
            await self.writer.execute(observation)
        self._check_owed(node, heard, beat)
        await self._check_kept(node, heard, beat)

    async def _join(self, node_id: NodeId, beat: work_pb2.Heartbeat) -> None:
        if self._joins_in_vain(node_id):
            return
        await self.sender.prepare(node_id)
        answer = await self.writer.execute(JoinNode(node_spec_from_proto(beat.spec)))
        if isinstance(answer, Rejected):
            if node_id not in self.writer.state.nodes:
                await self.sender.forget(node_id)
            _log.error("node refused", node=node_id, reason=answer.reason, message=answer.message)
        elif answer.sequence:
            _log.info("node joined", node=node_id, boot=beat.spec.boot_id, slots=beat.spec.slot_count)

    def _joins_in_vain(self, node_id: NodeId) -> bool:
        """Whether the fleet is full: then a stranger costs neither a consumer at the broker nor a decision."""
        nodes = self.writer.state.nodes
        if node_id in nodes or len(nodes) < limits.FLEET_NODES:
            return False
        return sum(not node.state.gone for node in nodes.values()) >= limits.FLEET_NODES

    async def _leave(self, node: Node, beat: work_pb2.Heartbeat) -> None:
        gone = beat.attempts_outstanding == 0
        if gone or node.state is not NodeState.LEAVING:
            await self.writer.execute(LeaveNode(node.spec.node_id, node.spec.boot_id, gone))
            if gone:
                _log.info("node left", node=node.spec.node_id)

    def _check_owed(self, node: Node, heard: _Heard, beat: work_pb2.Heartbeat) -> None:
        """A node that says it has nothing while it is owed work has lost a message: send again."""
        if beat.attempts_outstanding or not node.outstanding or node.sequence != heard.idle_sequence:
            heard.idle_beats, heard.idle_sequence = 0, node.sequence
            return
        heard.idle_beats += 1
        if heard.idle_beats >= limits.IDLE_BEATS_BEFORE_RESEND:
            heard.idle_beats = 0
            _log.warning("node is idle and owed work: sending again", node=node.spec.node_id, owed=node.outstanding)
            self.dispatcher.resend(node.spec.node_id)

    async def _check_kept(self, node: Node, heard: _Heard, beat: work_pb2.Heartbeat) -> None:
        """A node that does not know what it is to keep is told again; what it could not load is recorded."""
        node_id = node.spec.node_id
        if beat.kept_sequence != self.writer.state.kept.get(node_id, beat.kept_sequence):
            heard.stale_beats += 1
            if heard.stale_beats >= BEATS_BEFORE_REORDER:
                heard.stale_beats = 0
                self.dispatcher.resend_keeps(node_id)
            return
        heard.stale_beats = 0
        for progress in beat.models_in_progress[:NODE_KEEPS]:
            if progress.HasField("failure") and is_digest(progress.digest):
                failure = bounded(failure_from_proto(progress.failure))
                body = ReportReplica(node_id, node.spec.boot_id, Digest(progress.digest), failure)
                await self.writer.execute(body)

    def _on_commit(self, commits: Sequence[Committed]) -> None:
        """Nodes that serve a model by its name or an alias hear at once that it may be another one now."""
        for committed in commits:
            if any(isinstance(event, _NAMES_CHANGED) for event in committed.events):
                self._models_sequence = committed.sequence
                self._hurry.set()

    async def _watch(self) -> None:
        """Sends the pulse and looks for silence. A late look means that this process was deaf: nobody is blamed."""
        interval_ms = self.settings.heartbeat_ms
        self._forgive()
        looked_ms = self.clock.monotonic_ms()
        await self._pulse()  # nodes that are up answer a new leader's first pulse at once
        while True:
            await self._pause(interval_ms / 1000)
            now_ms = self.clock.monotonic_ms()
            if now_ms - looked_ms > 2 * interval_ms or not self.signals.connected:
                self._forgive()
            looked_ms = now_ms
            await self._pulse()
            try:
                await self._look(now_ms)
            except (NotLeaderError, LogError):
                raise
            except HivefoldError as error:
                _log.warning("silence not recorded", reason=error.reason, error=str(error))

    async def _pause(self, interval_s: float) -> None:
        """Waits for the next pulse, and sends one between where names of models have changed."""
        try:
            async with asyncio.timeout(interval_s):
                while True:
                    await self._hurry.wait()
                    self._hurry.clear()
                    await self._pulse()
        except TimeoutError:
            return

    async def _look(self, now_ms: int) -> None:
        self._forget_strangers(now_ms)
        for node_id, node in sorted(self.writer.state.nodes.items()):
            if node.state.gone:
                continue
            heard = self._heard.setdefault(node_id, _Heard(now_ms, 0))
            silent_ms = now_ms - heard.heard_ms
            lost = silent_ms >= self.settings.lost_after_ms
            if lost or (silent_ms >= self.settings.suspect_after_ms and node.state is NodeState.ONLINE):
                _log.warning("node is silent", node=node_id, silent_ms=silent_ms, lost=lost)
                await self.writer.execute(self._silence(node, silent_ms))
                if lost:
                    await self.sender.forget(node_id)

    def _forget_strangers(self, now_ms: int) -> None:
        """Who is silent and no node of the fleet, not even a former one, makes room for others."""
        nodes, lost_after_ms = self.writer.state.nodes, self.settings.lost_after_ms
        for node_id, heard in tuple(self._heard.items()):
            if node_id not in nodes and node_id not in self._dirty and now_ms - heard.heard_ms >= lost_after_ms:
                del self._heard[node_id]

    def _silence(self, node: Node, silent_ms: int) -> ReportSilence:
        settings = self.settings
        return ReportSilence(
            node.spec.node_id, node.spec.boot_id, silent_ms, settings.suspect_after_ms, settings.lost_after_ms
        )

    async def _pulse(self) -> None:
        state = self.writer.state
        pulse = work_pb2.Pulse(
            term=state.term,
            coordinator_id=state.coordinator_id,
            grpc_address=self.settings.grpc_address,
            sequence=state.sequence,
            checkpoint=self.checkpoints.latest if self.checkpoints else None,
            models_sequence=self._models_sequence,
        )
        self.signals.publish(Message("fleet.pulse", pulse.SerializeToString()))

    def _forgive(self) -> None:
        """Starts every silence anew."""
        now_ms = self.clock.monotonic_ms()
        for node_id in self.writer.state.nodes:
            self._heard.setdefault(node_id, _Heard(now_ms, 0)).heard_ms = now_ms


def _percent(ratio: float) -> int:
    """A node's load for the log; what is no ratio reads as idle."""
    return round(100 * min(ratio, 1.0)) if ratio > 0 else 0

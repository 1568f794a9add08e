"""The node's loop: work in, attempts through the core into actors, outcomes out, and signs of life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, assert_never

import structlog

from actors.bridge import ask
from actors.model import CancelFlag
from actors.probe import ProbesDone, RunProbes
from actors.runtime import ActorRef
from hivefold.bus.port import Delivery, Message, Signals, WorkReceiver
from hivefold.clock import Clock
from hivefold.errors import HivefoldError, InvalidRequestError, Reason, UnavailableError
from hivefold.limits import (
    DRAIN_S,
    FENCE_AFTER_MS,
    HEARTBEAT_MS,
    NODE_QUEUE_TASKS,
    PROBES_ASK_MS,
    UNPROVEN_WORK_S,
    WORK_ACK_WAIT_S,
)
from hivefold.observe import bound, span
from hivefold.v1 import fleet_pb2, telemetry_pb2, work_pb2
from hivefold.v1.node_service_pb2 import DescribeNodeResponse
from node.core import Abort, Acknowledge, Answer, Attempt, Effect, GiveBack, NodeCore, Start
from node.express import Express
from node.infer import InferRunner, Timing
from node.keeper import Keeper
from node.uplink import Uplink
from node.wire import OutcomeWriter, Stored, batch_of, read_cancel, read_pulse, read_work
from node.witness import Witness

_log = structlog.get_logger(__name__)

_TOUCH_AFTER_MS: Final = int(WORK_ACK_WAIT_S * 1000 / 3)
_SETTLE_S: Final = 1.0
"""How long outcomes of aborted attempts may take to be stored before the node leaves without them."""
_FAILURES: Final = {
    Reason.RETURNED: "the node is leaving and gave the attempt back",
    Reason.CANCELLED: "the job was cancelled",
    Reason.DEADLINE_EXCEEDED: "the job's deadline passed before the attempt began",
}


@dataclass(slots=True)
class _Work:
    """A work message that is not done."""

    message: work_pb2.WorkBatch
    delivery: Delivery
    writer: OutcomeWriter
    touched_ms: int


@dataclass(slots=True)
class _Running:
    task: asyncio.Task[None]
    cancel: CancelFlag = field(default_factory=CancelFlag)
    begun: bool = False
    """A task that is cancelled before its first step never runs, and so would never answer."""


@dataclass(slots=True)
class Agent:
    """One boot of a node. `run` returns when the node has left in good order."""

    spec: fleet_pb2.NodeSpec
    core: NodeCore
    signals: Signals
    receiver: WorkReceiver
    uplink: Uplink
    infer: InferRunner
    prober: ActorRef[RunProbes, ProbesDone]
    witness: Witness
    clock: Clock
    drain_s: float = DRAIN_S
    inferences_in_hand: Callable[[], int] = lambda: 0
    """Inference requests in hand, for heartbeats."""
    keeper: Keeper | None = None
    """Who keeps models loaded as ordered."""
    names_changed: Callable[[int], None] = lambda _: None
    """Is told with each pulse where in the log a model's name last came to stand for another."""
    reading: telemetry_pb2.Reading | None = None
    """The latest reading."""
    leader_address: str = ""
    """Where the coordinator answers calls; empty before it was heard."""
    _works: dict[int, _Work] = field(default_factory=dict)
    _runs: dict[int, _Running] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _delivery: int = 0
    _beats: int = 0
    _pulse_ms: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, then drains. Raises what breaks the node itself."""
        self._pulse_ms = self.clock.monotonic_ms()
        self.signals.on_reconnect(lambda: self._spawn(self._beat()))
        subscriptions = [
            await self.signals.subscribe("fleet.pulse", self._on_pulse),
            await self.signals.subscribe(f"control.{self.spec.node_id}", self._on_control),
            await self.signals.subscribe(f"express.work.{self.spec.node_id}", self._on_express),
        ]
        parts = (self._take_work(), self.uplink.run(), self._keep_beating(), self.witness.run())
        loops = [asyncio.create_task(part) for part in parts]
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopped, *loops], return_when=asyncio.FIRST_COMPLETED)
            for loop in loops:
                if loop.done():
                    loop.result()
            await self._leave()
        finally:
            for subscription in subscriptions:
                await subscription.stop()
            for task in (stopped, *loops, *self._tasks, *(running.task for running in self._runs.values())):
                task.cancel()
            await self.receiver.close()

    @property
    def serving(self) -> bool:
        """Whether the node takes work."""
        able = self.signals.connected and not self.core.fenced and not self.core.leaving
        return able and not self.witness.refusal

    def describe(self) -> DescribeNodeResponse:
        """How the node is, for its gRPC service."""
        return DescribeNodeResponse(
            spec=self.spec,
            broker_connected=self.signals.connected,
            fenced=self.core.fenced,
            leaving=self.core.leaving,
            attempts_outstanding=self.core.outstanding,
            loaded_models=self.infer.shelf.loaded,
            reading=self.reading,
            refusal=self.witness.refusal,
            proven_size=self.witness.proven.checkpoint.size if self.witness.proven else 0,
        )

    def take_reading(self, reading: telemetry_pb2.Reading) -> None:
        """Notes the latest reading for heartbeats and for `describe`."""
        self.reading = reading

    # -- work in ------------------------------------------------------------

    async def _take_work(self) -> None:
        async for delivery in self.receiver.deliveries():
            try:
                message = read_work(delivery.data)
                if not await self.witness.until_proven(message.term, UNPROVEN_WORK_S):
                    raise InvalidRequestError(_unproven(message.term, self.witness.refusal))
                while self.core.fenced or self.core.outstanding >= 2 * NODE_QUEUE_TASKS:
                    self._changed.clear()
                    await self._changed.wait()
                self._accept(delivery, message)
            except InvalidRequestError as error:
                _log.error("work.refused", error=error.message)
                self._spawn(_answered(delivery.acknowledge))

    def _on_express(self, message: Message) -> None:
        """Work that came as a signal: taken where nothing stands against it; its copy in the stream comes anyway."""
        if self.core.fenced or self.core.leaving or self.core.outstanding >= NODE_QUEUE_TASKS:
            return
        try:
            work = read_work(message.data)
            if self.witness.proves(work.term):
                self._accept(Express(message.data), work)
        except InvalidRequestError as error:
            _log.warning("work.express_refused", error=error.message)

    def _accept(self, delivery: Delivery, message: work_pb2.WorkBatch) -> None:
        if message.node_id != self.spec.node_id:
            raise InvalidRequestError(f"work for node {message.node_id} came here; it is dropped")
        self._delivery += 1
        batch = batch_of(message, self._delivery)
        writer = OutcomeWriter(self.spec.node_id, self.spec.boot_id, message.job_id, message.term, message.traceparent)
        self._works[self._delivery] = _Work(message, delivery, writer, self.clock.monotonic_ms())
        self._do(self.core.accept(batch, self.clock.now_us()))

    def _do(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Start():
                    self._runs[effect.run] = _Running(asyncio.create_task(self._run(effect)))
                case Answer():
                    self._answer(effect)
                case Abort():
                    self._abort(effect)
                case Acknowledge():
                    self._spawn(_answered(self._works.pop(effect.delivery).delivery.acknowledge))
                case GiveBack():
                    self._spawn(_answered(self._works.pop(effect.delivery).delivery.give_back))
                case _:
                    assert_never(effect)
        self._changed.set()

    # -- attempts -----------------------------------------------------------

    async def _run(self, start: Start) -> None:
        self._runs[start.run].begun = True
        work = self._works[start.delivery]
        message = work.message
        with (
            span("process work", kind="consumer", parent=message.traceparent, attributes=_attributes(start)) as current,
            bound(job_id=message.job_id),
        ):
            writer = work.writer.within(current.traceparent)
            timing = Timing(self.clock.now_us())
            try:
                outcomes = await self._outcomes(start, work, writer, timing)
            except HivefoldError as error:
                current.fail(error.reason.value, error.message)
                _log.warning("attempt.failed", task=start.attempts[0].task, reason=error.reason, error=error.message)
                took_us = self.clock.now_us() - timing.start_us
                outcomes = writer.failed(start.attempts, error, timing.start_us, took_us)
            # Inline output is read from the stream later: its outcome has to be there first.
            express = work.message.spec.WhichOneof("kind") != "infer"
            self.uplink.put(outcomes, lambda: self._stored(start), current.traceparent, express=express)

    async def _outcomes(self, start: Start, work: _Work, writer: OutcomeWriter, timing: Timing) -> list[Stored]:
        """What the attempts came to. Raises HivefoldError, and nothing else, for all of them."""
        cancel = self._runs[start.run].cancel
        try:
            if cancel.reason is not None:
                raise _given_up(cancel.reason)
            if work.message.spec.WhichOneof("kind") == "probe":
                return await self._run_probes(work, writer, start.attempts, timing)
            (attempt,) = start.attempts
            output = await self.infer.run(work.message, attempt, cancel, timing)
            return writer.produced(attempt, timing.start_us, timing.duration_us, output)
        except asyncio.CancelledError:
            if cancel.reason is None:
                raise
            raise _given_up(cancel.reason) from None
        except HivefoldError:
            raise
        except Exception as error:
            _log.exception("attempt.broke")
            # What it says may hold values, and the log of records forgets nothing.
            broken = f"the node broke on the attempt ({type(error).__name__}); its own log says more: please report it"
            raise HivefoldError(broken, reason=Reason.INTERNAL) from error

    async def _run_probes(
        self, work: _Work, writer: OutcomeWriter, attempts: tuple[Attempt, ...], timing: Timing
    ) -> list[Stored]:
        probe = work.message.spec.probe
        if probe.HasField("task_duration"):
            async with self.infer.compute:
                timing.start_us = self.clock.now_us()
                await asyncio.sleep(probe.task_duration.ToNanoseconds() / 1e9)
        await ask(self.prober, RunProbes(len(attempts)), deadline_ms=PROBES_ASK_MS)
        duration_us = (self.clock.now_us() - timing.start_us) // len(attempts)
        return writer.succeeded(attempts, timing.start_us, duration_us)

    def _stored(self, start: Start) -> None:
        self._runs.pop(start.run, None)
        self._do(self.core.stored(start.delivery, start.attempts))
        self._do(self.core.finished(start.run, self.clock.now_us()))

    def _answer(self, answer: Answer) -> None:
        work = self._works[answer.delivery]
        outcomes = work.writer.failed(answer.attempts, _given_up(answer.reason), self.clock.now_us())
        self.uplink.put(outcomes, lambda: self._do(self.core.stored(answer.delivery, answer.attempts)))

    def _abort(self, abort: Abort) -> None:
        running = self._runs.get(abort.run)
        if running is not None and running.cancel.reason is None:
            running.cancel.reason = abort.reason
            if running.begun:
                running.task.cancel()

    # -- the fleet ----------------------------------------------------------

    def _on_pulse(self, message: Message) -> None:
        pulse = read_pulse(message.data)
        if pulse is None or not self.witness.believes(pulse) or pulse.term < self.core.term:
            return
        if pulse.term > self.core.term:
            self._spawn(self._beat())  # a new leader need not wait for the next beat to know this node
        self.core.observe_term(pulse.term)
        self.leader_address = pulse.grpc_address
        self.names_changed(pulse.models_sequence)
        self._pulse_ms = self.clock.monotonic_ms()
        if self.core.fenced:
            self.core.unfence()
            _log.info("node.unfenced", term=pulse.term)
            self._changed.set()

    def _on_control(self, message: Message) -> None:
        cancel = read_cancel(message.data)
        # Attempts that are given up make their job fail: only who may give work may have that.
        if cancel is None or not self.witness.proves(cancel.term):
            return
        if cancel.job_id:
            self._do(self.core.cancel(cancel.job_id, cancel.term, self.clock.now_us()))
        elif self.keeper is not None and cancel.term >= self.core.term:
            self.keeper.order(message.data)

    async def _keep_beating(self) -> None:
        while True:
            self._watch()
            await self._beat()
            await asyncio.sleep(HEARTBEAT_MS / 1000)

    def _watch(self) -> None:
        """What is due with time: the fence, the broker's patience."""
        now_ms = self.clock.monotonic_ms()
        if not self.core.fenced and now_ms - self._pulse_ms > FENCE_AFTER_MS:
            _log.warning("node.fenced", silent_ms=now_ms - self._pulse_ms, connected=self.signals.connected)
            self._do(self.core.fence())
        for work in self._works.values():
            if now_ms - work.touched_ms > _TOUCH_AFTER_MS:
                work.touched_ms = now_ms
                self._spawn(_answered(work.delivery.in_progress))

    async def _beat(self) -> None:
        self._beats += 1
        beat = work_pb2.Heartbeat(
            spec=self.spec,
            counter=self._beats,
            attempts_outstanding=self.core.outstanding,
            attempts_running=self.core.running,
            loaded_models=self.infer.shelf.loaded,
            leaving=self.core.leaving,
            term=self.core.term,
            refusal=self.witness.refusal,
            inferences_in_hand=self.inferences_in_hand(),
            kept_sequence=self.keeper.sequence if self.keeper else 0,
            models_in_progress=self.keeper.progress() if self.keeper else (),
        )
        if self.reading is not None:
            beat.memory_available_bytes = self.reading.memory_available_bytes
            beat.cpu_utilization_ratio = self.reading.cpu_utilization_ratio
        self.signals.publish(Message(f"heartbeat.{self.spec.node_id}", beat.SerializeToString()))

    # -- leaving ------------------------------------------------------------

    async def _leave(self) -> None:
        _log.info("node.leaving", outstanding=self.core.outstanding, running=self.core.running)
        self._do(self.core.leave())
        await self._beat()
        # Without a broker no outcome gets out: the coordinator will find the node lost and repeat its attempts.
        if not await self._idle(self.drain_s if self.signals.connected else _SETTLE_S):
            self._do(self.core.return_running())
            await self._idle(_SETTLE_S)
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=_SETTLE_S)
        await self._beat()
        _log.info("node.left", outstanding=self.core.outstanding)

    async def _idle(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                while not self.core.idle:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _answered(answer: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Tells the broker about a delivery. If it is away, the delivery comes again and is refused as a repeat."""
    try:
        await answer()
    except UnavailableError as error:
        _log.info("delivery.unanswered", error=error.message)


def _attributes(start: Start) -> dict[str, str | int]:
    first = start.attempts[0]
    return {"hivefold.task": first.task, "hivefold.attempt": first.number, "hivefold.attempts": len(start.attempts)}


def _unproven(term: int, refusal: str) -> str:
    return f"no coordinator has proven term {term}: its work is dropped; {refusal or 'none was heard'}"


def _given_up(reason: Reason) -> HivefoldError:
    return HivefoldError(_FAILURES[reason], reason=reason)

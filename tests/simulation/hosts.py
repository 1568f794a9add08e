"""Processes of the simulated fleet, and the nodes' machines: each runs a production daemon's parts and starts anew."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from actors.probe import ProbesDone, RunProbes
from actors.reader import ReadRange
from actors.runtime import ActorRef
from coordinator.core.model import Model
from hivefold.blobs.memory import MemoryChunks
from hivefold.bus.port import Message
from hivefold.errors import HivefoldError
from hivefold.ids import AliasRef, ModelName, ModelRef, model_ref
from hivefold.limits import NODE_PREFETCH, RESULTS_BATCH
from hivefold.proof.extension import first_seen
from hivefold.v1 import telemetry_pb2
from hivefold.v1.checkpoint_pb2 import SignedCheckpoint
from node.agent import Agent
from node.content import Content
from node.core import Batch, Effect, NodeCore, Start
from node.infer import InferRunner
from node.keeper import Keeper
from node.serving.catalogue import Catalogue
from node.uplink import Uplink
from tests.simulation.checker import Checker
from tests.simulation.loop import Owner, VirtualLoop
from tests.simulation.models import ScriptedProber, SimChunks, SimShelf
from tests.simulation.parts import SimBroker, SimClock, SimConnection
from tests.simulation.registry import SimRegistry, node_spec
from tests.simulation.witnesses import SimKeyFile, WatchedWitness, WitnessFile, forged_work, pretence

T = TypeVar("T")


class Process:
    """Tasks that live, freeze and die together, with their connections to the bus."""

    def __init__(self, broker: SimBroker) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.broker = broker
        self.owner = Owner(loop)
        self.connections: list[SimConnection] = []
        self._loop = loop
        self._tasks: list[asyncio.Task[Any]] = []
        self.dead = False

    def connect(self) -> SimConnection:
        """One more connection."""
        self.connections.append(self.broker.connect(self.owner))
        return self.connections[-1]

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs something inside the process."""
        task = self._loop.create_task(work, context=self.owner.context.copy())
        self._tasks = [known for known in self._tasks if not known.done()]
        self._tasks.append(task)
        return task

    def kill(self) -> None:
        """As kill -9: nothing more comes out of it, except what is on its way."""
        if self.dead:
            return
        self.dead = True
        for connection in self.connections:
            self.broker.close(connection)
        for task in self._tasks:
            task.cancel()
        self.owner.thaw()


class WatchedCore(NodeCore):
    """The node's core; the checker sees what it accepts and starts."""

    def __init__(self, node_id: str, boot_id: str, places: int, checker: Checker) -> None:
        super().__init__(boot_id, places)
        self._node_id = node_id
        self._checker = checker
        self._batches: dict[int, Batch] = {}

    def observe_term(self, term: int) -> None:
        self._checker.heard_term(self._node_id, self.boot_id, term)
        super().observe_term(term)

    def accept(self, batch: Batch, now_us: int) -> list[Effect]:
        known = len(self._parcels)
        self._batches[batch.delivery] = batch
        effects = super().accept(batch, now_us)
        if len(self._parcels) > known or any(isinstance(effect, Start) for effect in effects):
            self._checker.accepted(self._node_id, batch)
        return self._seen_by_checker(effects)

    def finished(self, run: int, now_us: int) -> list[Effect]:
        return self._seen_by_checker(super().finished(run, now_us))

    def cancel(self, job_id: str, term: int, now_us: int) -> list[Effect]:
        return self._seen_by_checker(super().cancel(job_id, term, now_us))

    def _seen_by_checker(self, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            if isinstance(effect, Start):
                if self.fenced:
                    self._checker.fail(f"{self._node_id} starts work while it is fenced")
                self._checker.started(self._node_id, self._batches[effect.delivery], effect.attempts)
        return effects


@dataclass(slots=True)
class NodeHost:
    """A node's machine; `failure_ratio` of its attempts fail."""

    node_id: str
    slots: int
    broker: SimBroker
    clock: SimClock
    draw: random.Random
    failure_ratio: float
    chunks: MemoryChunks
    look_up: Callable[[str, random.Random], Model | None]
    """Asks the coordinator that leads what a model's name stands for."""
    boots: int = 0
    down_s: float = 0.0
    """How long it stays down when it ends; drawn where it is 0."""
    process: Process | None = None
    seen: WitnessFile = field(default_factory=WitnessFile)
    """What its disk has of the log's checkpoints."""
    unexpected: list[BaseException] = field(default_factory=list)
    asking: random.Random = field(default_factory=random.Random)
    keeper: Keeper = field(init=False)
    catalogue: Catalogue = field(init=False)
    shelf: SimShelf = field(init=False)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def supervise(self) -> None:
        """Starts the daemon whenever it has ended."""
        while True:
            self.boots += 1
            self._stop = asyncio.Event()
            self.process = Process(self.broker)
            task = self.process.spawn(self._agent(self.process).run(self._stop))
            await asyncio.wait({task})
            self.process.kill()
            if not task.cancelled() and (error := task.exception()) is not None:
                self.unexpected.append(error)
            await asyncio.sleep(self.down_s or self.draw.expovariate(0.3))

    def kill(self) -> None:
        """The daemon dies without a word."""
        if self.process is not None:
            self.process.kill()

    def leave(self) -> None:
        """As SIGTERM."""
        self._stop.set()

    def cut(self) -> None:
        """The network to the node is gone."""
        if self.process is not None and not self.process.dead:
            self.process.connections[0].disconnect()

    def heal(self) -> None:
        """The network to the node is back."""
        if self.process is not None and not self.process.dead and not self.process.connections[0].connected:
            self.process.connections[0].reconnect()

    def deceive(self, lie: str, keys: SimKeyFile, draw: random.Random) -> Message | None:
        """The pulse of an impostor, whose work is sent; None where this node knows no log that it could deny."""
        if self.seen.data is None:
            return None
        known = first_seen(SignedCheckpoint.FromString(self.seen.data))
        self.broker.add_work(self.node_id, forged_work(self.node_id, f"{self.node_id}-b{self.boots}", known))
        return pretence(lie, known, self.broker.checker, keys, draw)

    def hear(self, message: Message) -> None:
        """A message that only this node gets."""
        if self.process is not None and not self.process.dead:
            self.process.connections[0].receive(message)

    def freeze(self) -> None:
        """As SIGSTOP."""
        if self.process is not None and not self.process.dead:
            self.process.owner.freeze()

    def thaw(self) -> None:
        """As SIGCONT."""
        if self.process is not None:
            self.process.owner.thaw()

    def keeps(self, digests: set[str]) -> bool:
        """Whether it is told to keep exactly these models, and has them."""
        return set(self.keeper._wishes) == digests and all(map(self.shelf.has, digests))

    async def finds(self, alias: AliasRef) -> ModelRef | None:
        """What somebody who asks this node for a model by its alias gets; None where there is none, or no answer."""
        assert self.process is not None
        asked = self.process.spawn(self.catalogue.find(*alias.split("@")))
        await asyncio.wait({asked})
        error = None if asked.cancelled() else asked.exception()
        if asked.cancelled() or isinstance(error, HivefoldError):
            return None
        return model_ref(ModelName(asked.result().name), asked.result().version)

    def _agent(self, process: Process) -> Agent:
        boot_id = f"{self.node_id}-b{self.boots}"
        connection = process.connect()
        content = Content(SimChunks(connection, self.chunks, self.draw))
        shelf = SimShelf(content, self.clock, self.draw, self.failure_ratio, self.slots)
        self.catalogue = Catalogue(SimRegistry(connection, self.look_up, self.asking), self.clock)
        self.keeper = Keeper(boot_id, shelf, self.catalogue.find)
        self.shelf = shelf
        prober = cast(ActorRef[RunProbes, ProbesDone], ScriptedProber(self.draw, self.failure_ratio))
        return Agent(
            spec=node_spec(self.node_id, boot_id, self.slots),
            core=WatchedCore(self.node_id, boot_id, self.slots + NODE_PREFETCH, self.broker.checker),
            signals=connection.signals(),
            receiver=connection.watched_work(self.node_id, boot_id),
            uplink=Uplink(connection.result_sender(), connection.signals(), batch_outcomes=RESULTS_BATCH),
            infer=InferRunner(
                content, shelf, cast(ActorRef[ReadRange, memoryview], None), cast(Any, self.clock), self.slots
            ),
            prober=prober,
            witness=WatchedWitness(self.node_id, self.seen, connection.checkpoints(), self.clock, self.broker.checker),
            clock=self.clock,
            keeper=self.keeper,
            names_changed=self.catalogue.outdate,
            reading=telemetry_pb2.Reading(memory_available_bytes=1 << 33),
        )

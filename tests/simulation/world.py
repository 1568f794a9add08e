"""One run: a fleet, clients and faults from one seed; then everything heals, and the fleet must converge."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog
from structlog.typing import EventDict

from coordinator.core.commands import CancelJob, CommandBody, DrainNode, SubmitJob, UndrainNode
from coordinator.core.model import JobSpec, Priority, ProbeSpec
from coordinator.replay import replay
from hivefold.bus.memory import Fault as Loss
from hivefold.ids import JobId, NodeId, RequestId
from hivefold.limits import WORK_ACK_WAIT_S
from hivefold.log.memory import Fault, MemoryEventLog
from tests.simulation.checker import Checker
from tests.simulation.hosts import CoordinatorHost, NodeHost
from tests.simulation.loop import StuckError, VirtualLoop, sealed
from tests.simulation.parts import LogStore, SimBroker, SimClock

CALM_S: Final = 150.0
"""How long the fleet may record nothing while work is open, after the faults: longer than any task or wait."""
_CALM_LONGEST_S: Final = 4000.0
_SETTLE_S: Final = 20.0


@dataclass(slots=True)
class Outcome:
    """How one run ended; `broken` is empty when every promise held."""

    seed: int
    broken: str
    simulated_s: float
    records: int
    faults: Counter[str]
    trace: list[str] = field(repr=False, default_factory=list)

    @property
    def digest(self) -> str:
        """Of the whole trace."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()


class World:
    """Everything of one run. All chance comes from the seed, a stream of its own for each purpose."""

    def __init__(self, seed: int, loop: VirtualLoop) -> None:
        self.seed = seed
        self.loop = loop
        self.lines: list[str] = []
        self.faults: Counter[str] = Counter()
        self.checker = Checker(self.note)
        draw = self.drawing("profile")
        self._losses = draw.choice([0.0, 0.0, 0.01, 0.05, 0.2])
        self._network = self.drawing("network")
        self._healed = False
        self._chaos_s = draw.uniform(30.0, 120.0)
        self._jobs_wanted = draw.randint(5, 20)
        self.store = LogStore(self.checker, self.drawing("log"))
        self.store.slowness_s = draw.choice([0.0005, 0.002, 0.02, 0.2])
        self.broker = SimBroker(self.checker, self._lose)
        self.coordinator = CoordinatorHost(self.store, self.broker, SimClock(loop), seed, self.drawing("coordinator"))
        failing = draw.choice([0.0, 0.0, 0.05, 0.2])
        self.nodes = [
            NodeHost(f"n{n}", draw.randint(1, 3), self.broker, SimClock(loop), self.drawing(f"n{n}"), failing)
            for n in range(1, draw.randint(1, 4) + 1)
        ]
        self._enabled = {name for name in self._kinds() if draw.random() < 0.5}
        self._mean_s = {name: draw.uniform(3.0, 30.0) for name in sorted(self._kinds())}
        self._tasks: list[asyncio.Task[Any]] = []
        self._later: list[asyncio.Task[Any]] = []

    def drawing(self, purpose: str) -> random.Random:
        """A stream of chance of its own."""
        return random.Random(f"{self.seed}/{purpose}")

    def note(self, line: str) -> None:
        """Adds a line to the trace."""
        self.lines.append(f"{self.loop.time():10.4f} {line}")

    # -- the run -------------------------------------------------------------------

    async def run(self) -> None:
        """Chaos, calm, and the last checks. Raises ViolationError."""
        self._spawn(self.coordinator.supervise())
        for node in self.nodes:
            self._spawn(node.supervise())
        self._spawn(self._redeliver())
        chaos = [self._spawn(self._keep(name)) for name in sorted(self._enabled)]
        clients = [self._spawn(self._client(n)) for n in range(1, 3)]
        self._spawn(self._operator())
        await self._pass(self._chaos_s)
        self.note("-- calm --")
        for task in (*chaos, *self._later):
            task.cancel()
        self._heal()
        await self._until_converged(clients)
        self.checker.converged()
        await self._check_replay()

    async def _pass(self, seconds: float) -> None:
        end_s = self.loop.time() + seconds
        while self.loop.time() < end_s:
            await asyncio.sleep(0.5)
            self._look()

    async def _until_converged(self, clients: list[asyncio.Task[None]]) -> None:
        end_s = self.loop.time() + _CALM_LONGEST_S
        moved_s, records = self.loop.time(), 0
        while self.loop.time() < min(end_s, moved_s + CALM_S):
            await self._pass(1.0)
            if len(self.store.records) > records:
                moved_s, records = self.loop.time(), len(self.store.records)
            if all(client.done() for client in clients) and not self.checker.open_work():
                await self._pass(_SETTLE_S)
                return
        if not all(client.done() for client in clients):
            self.checker.fail("a client got no answer although everything has healed")

    def _look(self) -> None:
        """What went wrong where nobody looked."""
        if self.checker.broken:
            self.checker.fail(self.checker.broken)
        unexpected = [*self.coordinator.unexpected, *(error for node in self.nodes for error in node.unexpected)]
        if unexpected:
            self.checker.fail(f"a process ended of {unexpected[0]!r}")
        if self.loop.died:
            self.checker.fail(f"a task died: {self.loop.died[0]}")

    async def _check_replay(self) -> None:
        current = self.coordinator.current
        if current is None or current.leadership is None:
            self.checker.fail("nobody leads although everything has healed")
            return
        writer = current.leadership.writer
        end_s = self.loop.time() + CALM_S
        while writer.state.sequence != len(self.store.records) and self.loop.time() < end_s:
            await asyncio.sleep(0.1)  # the answer of the last append is on its way
        live = writer.state
        replayed = await replay(MemoryEventLog(self.store.records), up_to=live.sequence)
        if replayed.state != live or replayed.state != self.checker.state:
            self.checker.fail("replay is not live")
        gone = [node_id for node_id, node in live.nodes.items() if node.state.gone]
        if gone or len(live.nodes) != len(self.nodes):
            self.checker.fail(f"nodes are up and not in the fleet: {gone}, known {sorted(live.nodes)}")

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self.loop.create_task(work)
        self._tasks.append(task)
        return task

    # -- people ----------------------------------------------------------------------

    async def _client(self, number: int) -> None:
        draw = self.drawing(f"client {number}")
        for job in range(1, self._jobs_wanted + 1):
            await asyncio.sleep(draw.expovariate(self._jobs_wanted / self._chaos_s))
            request_id = RequestId(f"r{number}-{job}")
            spec = _job(draw)
            await self._insist(draw, SubmitJob(JobId(f"j-{request_id}"), request_id, spec))
            if draw.random() < 0.2:  # a repeat, as from a client that forgot its answer
                await self._insist(draw, SubmitJob(JobId(f"k-{request_id}"), request_id, spec))
            if draw.random() < 0.1:
                await self._insist(draw, SubmitJob(JobId(f"o-{request_id}"), request_id, JobSpec(ProbeSpec(99))))
            job_id = self.checker.acknowledged_jobs.get(request_id)
            if job_id is not None and draw.random() < 0.15:
                await asyncio.sleep(draw.expovariate(1.0))
                await self._insist(draw, CancelJob(JobId(job_id)))

    async def _insist(self, draw: random.Random, body: CommandBody) -> None:
        """Asks again until there is an answer, as hivefold's own client does; the server draws a job id each time."""
        for attempt in range(1, 10_000):
            asked = replace(body, job_id=JobId(f"{body.job_id}-{attempt}")) if isinstance(body, SubmitJob) else body
            answer = await self.coordinator.call(asked)
            if answer is not None:
                self.note(f"{type(body).__name__} -> {type(answer).__name__} {getattr(answer, 'sequence', '')}")
                self.checker.answered(asked, answer)
                return
            await asyncio.sleep(draw.uniform(0.05, 1.0))

    async def _operator(self) -> None:
        draw = self.drawing("operator")
        while not self._healed and "drain" in self._enabled:
            await asyncio.sleep(draw.expovariate(0.1))
            node_id = NodeId(draw.choice(self.nodes).node_id)
            await self._insist(draw, DrainNode(node_id))
            await asyncio.sleep(draw.expovariate(0.2))
            await self._insist(draw, UndrainNode(node_id))

    # -- faults ----------------------------------------------------------------------

    def _kinds(self) -> dict[str, Callable[[random.Random], None]]:
        coordinator = self.coordinator
        return {
            "coordinator crash": lambda draw: coordinator.kill(),
            "deposed leader": self._depose,
            "lost ack": lambda draw: self._inject(draw.choice([Fault.LOST_ACK, Fault.LOST_REQUEST])),
            "refused append": lambda draw: self._inject(Fault.REFUSED),
            "log full": self._fill,
            "log stalled": self._stall,
            "node crash": lambda draw: draw.choice(self.nodes).kill(),
            "node leave": lambda draw: draw.choice(self.nodes).leave(),
            "node cut off": self._cut,
            "broker restart": self._restart_broker,
            "clock jump": self._jump,
            "redelivery": lambda draw: self.broker.redeliver(draw.choice(self.nodes).node_id),
            "drain": lambda draw: None,
        }

    async def _keep(self, name: str) -> None:
        draw = self.drawing(name)
        act = self._kinds()[name]
        while True:
            await asyncio.sleep(draw.expovariate(1 / self._mean_s[name]))
            self.note(f"!! {name}")
            self.faults[name] += 1
            act(draw)

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            act()

        self._later.append(self._spawn(wait()))

    def _lose(self, subject: str) -> Loss:
        if self._healed or self._network.random() >= self._losses:
            return Loss.PASS
        loss = self._network.choice([Loss.DROP, Loss.REPEAT, Loss.DELAY])
        self.faults[f"message {loss.name.lower()}"] += 1
        if loss is Loss.DELAY:
            self._after(self._network.expovariate(2.0), self.broker.release)
        return loss

    def _inject(self, fault: Fault) -> None:
        if self.coordinator.current is not None:
            self.coordinator.current.log.inject(fault)

    def _depose(self, draw: random.Random) -> None:
        task = self.coordinator.depose()
        if task is not None:
            self._after(draw.uniform(0.5, 10.0), self.coordinator.wake_old)

    def _fill(self, draw: random.Random) -> None:
        self.store.full = True
        self._after(draw.uniform(0.5, 10.0), self._empty)

    def _empty(self) -> None:
        self.store.full = False

    def _stall(self, draw: random.Random) -> None:
        current = self.coordinator.current
        if current is not None:
            current.log.hold()
            self._after(draw.uniform(0.1, 8.0), current.log.release)

    def _cut(self, draw: random.Random) -> None:
        node = draw.choice(self.nodes)
        node.cut()
        self._after(draw.uniform(0.5, 25.0), node.heal)

    def _restart_broker(self, draw: random.Random) -> None:
        self.broker.cut_all()
        self._after(draw.uniform(0.1, 10.0), self.broker.restart)

    def _jump(self, draw: random.Random) -> None:
        clock = draw.choice([self.coordinator.clock, *(node.clock for node in self.nodes)])
        clock.ahead_us += int(draw.uniform(-600, 600) * 1e6)

    async def _redeliver(self) -> None:
        """The work stream's own patience."""
        while True:
            await asyncio.sleep(WORK_ACK_WAIT_S)
            for node in self.nodes:
                self.broker.redeliver(node.node_id)

    def _heal(self) -> None:
        self._healed = True
        self.coordinator.wake_old()
        self._after(5.0, self.coordinator.kill_old)
        current = self.coordinator.current
        if current is not None:
            current.log.release()
        self._empty()
        self.broker.restart()
        self.broker.release()
        for node in self.nodes:
            node.down_s = 1.0
            node.heal()


def _job(draw: random.Random) -> JobSpec:
    """A small job: quick tasks or slow ones, at times with a deadline."""
    return JobSpec(
        ProbeSpec(draw.randint(1, 12), draw.choice([0, 0, 10_000, 300_000, 3_000_000])),
        priority=draw.choice(list(Priority)),
        timeout_us=draw.choice([0, 0, 0, 60_000_000]),
        max_attempts=draw.choice([0, 2, 5]),
    )


def simulate(seed: int) -> Outcome:
    """Runs one seed. The same seed gives the same trace, byte for byte, under one PYTHONHASHSEED."""
    draw = random.Random(f"{seed}/loop")
    loop = VirtualLoop(draw, shuffle=draw.random() < 0.5)
    world = World(seed, loop)
    _hear(world)
    broken = ""
    gc.disable()  # when it would run depends on the runs before; what it finalizes runs on the loop
    try:
        with sealed():
            try:
                loop.run_until_complete(world.run())
            except (AssertionError, StuckError) as error:
                broken = world.checker.broken or f"{type(error).__name__}: {error}"
            _end(loop)
    finally:
        gc.enable()
        loop.close()
        structlog.reset_defaults()
    return Outcome(seed, broken, loop.time(), len(world.store.records), world.faults, world.lines)


def _end(loop: VirtualLoop) -> None:
    tasks = sorted(asyncio.all_tasks(loop), key=hash)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks))


def _hear(world: World) -> None:
    """The daemons' warnings become part of the trace."""

    def keep(_logger: Any, method: str, event: EventDict) -> EventDict:
        words = " ".join(f"{key}={value}" for key, value in sorted(event.items()) if key != "event")
        world.note(f"   {method}: {event['event']} {words}")
        raise structlog.DropEvent

    structlog.configure(processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))

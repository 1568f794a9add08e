"""One run: a fleet, clients and faults of one scenario; then everything heals, and the fleet must converge."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final
from unittest.mock import patch

import structlog
from structlog.typing import EventDict

from coordinator.replay import replay
from coordinator.wire.records import decode_record
from hivefold import limits
from hivefold.blobs.content import read_all
from hivefold.blobs.memory import MemoryChunks
from hivefold.errors import HivefoldError
from hivefold.ids import AliasRef
from hivefold.lease.memory import LeaseStore
from hivefold.log.snapshots import MemorySnapshots
from hivefold.proof.checkpoint import read_note
from hivefold.proof.keys import PublicKey
from tests.fixtures.keys import memory_job_keys
from tests.simulation.checker import Checker
from tests.simulation.coordinators import CoordinatorHost, Group, Shared
from tests.simulation.faults import Faults
from tests.simulation.hosts import NodeHost
from tests.simulation.log import LogStore, SimLog
from tests.simulation.loop import StuckError, VirtualLoop, sealed, sleep
from tests.simulation.models import stored_fixtures
from tests.simulation.outputs import check_outputs
from tests.simulation.parts import SimBroker, SimClock
from tests.simulation.people import People
from tests.simulation.scenario import CALLS, CHANGES, Scenario
from tests.simulation.witnesses import SimKeyFile, keep_in_memory

CALM_S: Final = 150.0
"""How long the fleet may record nothing while work is open, after the faults: longer than any task or wait."""
_CALM_LONGEST_S: Final = 4000.0
_SETTLE_S: Final = 7.0
"""How long it is looked at after it has converged: longer than silence goes unnoticed."""


@dataclass(slots=True)
class Outcome:
    """How one run ended; `broken` is empty when every promise held."""

    scenario: Scenario
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

    def __init__(self, scenario: Scenario, loop: VirtualLoop) -> None:
        self.scenario = scenario
        self.loop = loop
        self.lines: list[str] = []
        self.checker = Checker(self.note)
        self.store = LogStore(self.checker, scenario.drawing("log"), scenario.segment_records)
        self.store.slowness_s = scenario.slowness_s
        self.broker = SimBroker(self.checker)
        self.chunks = MemoryChunks()
        self.job_keys = memory_job_keys(self.chunks)
        signing_keys = SimKeyFile()
        shared = Shared(
            self.store,
            LeaseStore(SimClock(loop)),
            MemorySnapshots(),
            self.broker,
            self.checker,
            scenario.seed,
            scenario.snapshot_records,
            scenario.keep_segments,
            self.job_keys,
            self.chunks,
            signing_keys,
        )
        self.group = Group(
            [
                CoordinatorHost(name, shared, SimClock(loop), scenario.drawing(name))
                for name in (f"c{number}" for number in range(1, scenario.coordinators + 1))
            ]
        )
        self.nodes = [self._node(number, slots) for number, slots in enumerate(scenario.slots, 1)]
        network = scenario.drawing("network")
        self.faults = Faults(self.store, self.broker, self.group, self.nodes, network, signing_keys)
        self.broker.fault = self.faults.lose
        self._machines: list[CoordinatorHost | NodeHost] = [*self.group.hosts, *self.nodes]
        self._tasks: list[asyncio.Task[Any]] = []

    def _node(self, number: int, slots: int) -> NodeHost:
        name = f"n{number}"
        draw = self.scenario.drawing(name)
        clock, failing = SimClock(self.loop), self.scenario.failing
        host = NodeHost(name, slots, self.broker, clock, draw, failing, self.chunks, self.group.look_up)
        host.asking = self.scenario.drawing(f"{name} asks")
        return host

    def note(self, line: str) -> None:
        """Adds a line to the trace."""
        self.lines.append(f"{self.loop.time():10.4f} {line}")

    async def run(self) -> None:
        """Chaos, calm, and the last checks. Raises ViolationError."""
        self.faults.losses = self.scenario.losses
        people = People(self.group, self.checker, await stored_fixtures(self.chunks), self.note)
        for machine in self._machines:
            self._spawn(machine.supervise())
        self._spawn(self._redeliver())
        if any(act.name in CHANGES for act in self.scenario.acts):
            self._spawn(self._use_names())
        calls = await self._act(people)
        self.note("-- calm --")
        self.faults.heal()
        await self._until_converged(calls)
        self.checker.converged()
        await self._check_replay()
        await self._check_proofs()
        await self._check_registry()
        await check_outputs(self.checker, self.broker.connect_for_checks(), self.job_keys)

    async def _act(self, people: People) -> list[asyncio.Task[None]]:
        """Does what the scenario says when it says so; what was asked and may have no answer yet."""
        calls: list[asyncio.Task[None]] = []
        for act in self.scenario.acts:
            await self._pass(act.at_s)
            self.note(f"!! {act}")
            draw = self.scenario.drawing(f"act {act.number}")
            if act.name in CALLS:
                calls.append(self._spawn(people.do(act, draw, [node.node_id for node in self.nodes])))
            else:
                self.faults.strike(act.name, draw)
        await self._pass(self.scenario.chaos_s)
        return calls

    async def _pass(self, until_s: float) -> None:
        while (now_s := self.loop.time()) < until_s:
            await asyncio.sleep(min(0.5, until_s - now_s))
            self._look()

    async def _until_converged(self, calls: list[asyncio.Task[None]]) -> None:
        begun_s = moved_s = self.loop.time()
        records = 0
        while (now_s := self.loop.time()) < min(begun_s + _CALM_LONGEST_S, moved_s + CALM_S):
            await self._pass(now_s + 0.5)
            if len(self.store.records) > records:
                moved_s, records = self.loop.time(), len(self.store.records)
            if all(call.done() for call in calls) and self._is_calm():
                await self._pass(self.loop.time() + _SETTLE_S)
                if self._is_calm():
                    return
        if not all(call.done() for call in calls):
            self.checker.fail("a client got no answer although everything has healed")

    def _is_calm(self) -> bool:
        nodes = self.checker.state.nodes
        here = len(nodes) == len(self.nodes) and not any(node.state.gone for node in nodes.values())
        return here and not self.checker.open_work()

    def _look(self) -> None:
        """What went wrong where nobody looked."""
        if self.checker.broken:
            self.checker.fail(self.checker.broken)
        self.group.check_standbys(self.checker)
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error
        self._tasks = [task for task in self._tasks if not task.done()]
        unexpected = [error for machine in self._machines for error in machine.unexpected]
        if unexpected:
            self.checker.fail(f"a process ended of {unexpected[0]!r}")
        if self.loop.died:
            self.checker.fail(f"a task died: {self.loop.died[0]}")

    async def _check_replay(self) -> None:
        end_s = self.loop.time() + CALM_S
        while len(leaders := self.group.leaders) != 1 and self.loop.time() < end_s:
            await asyncio.sleep(0.1)  # a lease that is renewed slowly is not believed for a moment
        if len(leaders) != 1 or leaders[0].leadership is None:
            self.checker.fail(f"{len(leaders)} coordinators lead although everything has healed")
            return
        writer = leaders[0].leadership.writer
        end_s = self.loop.time() + CALM_S
        while writer.state.sequence != len(self.store.records) and self.loop.time() < end_s:
            await asyncio.sleep(0.1)  # the answer of the last append is on its way
        live = writer.state
        replayed = await replay(SimLog(self.store), up_to=live.sequence)
        if replayed.state != live or replayed.state != self.checker.state:
            self.checker.fail("replay is not live")
        gone = [node_id for node_id, node in live.nodes.items() if node.state.gone]
        if gone or len(live.nodes) != len(self.nodes):
            self.checker.fail(f"nodes are up and not in the fleet: {gone}, known {sorted(live.nodes)}")

    async def _check_proofs(self) -> None:
        """All is signed, every node has seen it, and what was archived is what was stored."""
        end_s, store, proofs = self.loop.time() + CALM_S, self.store, self.checker.proofs
        names = [node.node_id for node in self.nodes]
        while not (proofs.caught_up(names) and store.archived) and self.loop.time() < end_s:
            await asyncio.sleep(0.1)
            self._look()
        if not proofs.caught_up(names):
            self.checker.fail("nodes have not seen the whole log signed although everything has healed")
        if not store.archived:
            self.checker.fail("a closed segment is not archived although everything has healed")
        proofs.check_archive(store.records, store.archive)

    async def _check_registry(self) -> None:
        """Nodes keep what they are to keep, know what names stand for, and the bytes of all models are there."""
        end_s, book, state = self.loop.time() + CALM_S, self.checker.registry, self.checker.state
        for node in self.nodes:
            while not node.keeps(book.kept_by(state, node.node_id)) and self.loop.time() < end_s:
                await asyncio.sleep(0.1)
            if not node.keeps(book.kept_by(state, node.node_id)):
                self.checker.fail(f"{node.node_id} does not keep what the log says that it keeps")
            for alias, stands_for in sorted(book.aliases.items()):
                while (found := await node.finds(alias)) != stands_for and self.loop.time() < end_s:
                    await asyncio.sleep(0.1)
                if found != stands_for:
                    self.checker.fail(f"{node.node_id} takes {alias} for {found}, it stands for {stands_for}")
        for ref, model in sorted(book.needed().items()):
            try:
                async with aclosing(read_all(self.chunks, model.artifact.root)) as pieces:
                    assert b"".join([piece async for piece in pieces])
            except HivefoldError as error:
                self.checker.fail(f"the bytes of {ref} are lost: {error}")

    async def _use_names(self) -> None:
        """Somebody asks nodes for models by their aliases."""
        draw = self.scenario.drawing("users")
        while True:
            await asyncio.sleep(draw.expovariate(0.5))
            node, aliases = draw.choice(self.nodes), sorted(self.checker.state.aliases)
            if aliases and node.process is not None and not node.process.dead:
                self._spawn(self._ask_node(node, draw.choice(aliases)))

    async def _ask_node(self, node: NodeHost, alias: AliasRef) -> None:
        await node.finds(alias)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self.loop.create_task(work)
        self._tasks.append(task)
        return task

    async def _redeliver(self) -> None:
        """The work stream's own patience."""
        while True:
            await asyncio.sleep(limits.WORK_ACK_WAIT_S)
            for node in self.nodes:
                self.broker.redeliver(node.node_id)


def simulate(scenario: Scenario) -> Outcome:
    """Runs one scenario. The same one gives the same trace, byte for byte, in any process."""
    loop = VirtualLoop(scenario.drawing("loop"), shuffle=scenario.shuffle)
    world = World(scenario, loop)
    _hear(world)
    broken = ""
    gc.disable()  # when it would run depends on the runs before; what it finalizes runs on the loop
    try:
        with sealed(), _shortened(scenario):
            try:
                loop.run_until_complete(world.run())
            except (AssertionError, StuckError) as error:
                broken = world.checker.broken or f"{type(error).__name__}: {error}"
            _end(loop)
    finally:
        world.store.archive.remove()
        gc.enable()
        loop.close()
        structlog.reset_defaults()
    return Outcome(scenario, broken, loop.time(), len(world.store.records), world.faults.counts, world.lines)


@contextmanager
def _shortened(scenario: Scenario) -> Iterator[None]:
    """Bounds that are met soon; and what is pure and done many times over is done once, as reading records."""
    with (
        patch.object(limits, "RECENT_JOBS", scenario.recent_jobs),
        patch.object(PublicKey, "verifies", lru_cache(maxsize=None)(PublicKey.verifies)),
        patch("coordinator.replay.decode_record", lru_cache(maxsize=None)(decode_record)),
        patch("hivefold.proof.extension.read_note", lru_cache(maxsize=None)(read_note)),
        patch("asyncio.sleep", sleep),
        patch("node.witness._keep", keep_in_memory),
        patch("node.buffers._STEP_BYTES", 4096),
        patch("coordinator.core.evolve_models.REPLICA_RETRY_US", 2_000_000),
        patch("coordinator.core.evolve_models.REPLICA_RETRY_MAX_US", 8_000_000),
    ):
        yield


def _end(loop: VirtualLoop) -> None:
    for owner in loop.owners:
        owner.thaw()
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

"""The coordinators' machines: each runs one member of the group, dies without a word and is started again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from coordinator.archiver import Archiver
from coordinator.batch import Accepted
from coordinator.checkpoints import Signing
from coordinator.core.commands import CommandBody, RegisterModel
from coordinator.core.model import Model, Rejected, SigningKey
from coordinator.core.resolve import resolve
from coordinator.followers import Followed
from coordinator.job_keys import JobKeys
from coordinator.lead import Ends, Leadership, LeadSettings
from coordinator.member import Member, leaves
from coordinator.presence import PresenceSettings
from coordinator.snapshots import Snapshotter, restore
from coordinator.standby import Standby
from hivefold.blobs.memory import MemoryChunks
from hivefold.blobs.port import ChunkStore
from hivefold.entropy import SeededEntropy
from hivefold.errors import HivefoldError, UnavailableError
from hivefold.ids import ModelName, RequestId
from hivefold.lease.campaign import Campaign
from hivefold.lease.memory import LeaseStore
from hivefold.lease.port import Holder
from hivefold.log.snapshots import MemorySnapshots
from tests.simulation.checker import Checker
from tests.simulation.hosts import Process
from tests.simulation.log import LogStore, SimLease, SimLog
from tests.simulation.models import SimChunks, stored_model
from tests.simulation.parts import SimBroker, SimClock
from tests.simulation.witnesses import SimKeyFile

T = TypeVar("T")

_ANSWER_S = 30.0


@dataclass(slots=True)
class Shared:
    """What all coordinators share: the broker and what it keeps."""

    store: LogStore
    leases: LeaseStore
    snapshots: MemorySnapshots
    broker: SimBroker
    checker: Checker
    seed: int
    snapshot_records: int
    keep_segments: int
    job_keys: JobKeys
    chunks: MemoryChunks
    signing_keys: SimKeyFile


@dataclass(slots=True)
class Incarnation:
    """One process of a coordinator; hivefold's Stage: it notes whether it follows or leads."""

    name: str
    process: Process
    log: SimLog
    lease: SimLease
    checker: Checker
    entropy: SeededEntropy
    chance: random.Random
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    chunks: SimChunks | None = None
    """Over its connection, while it leads."""
    leadership: Leadership | None = None
    standby: Standby | None = None

    def follow(self, standby: Standby) -> None:
        """It follows."""
        self.standby, self.leadership = standby, None

    def lead(self, lead: Leadership) -> None:
        """It leads."""
        lead.writer.on_commit(lambda commits: self.checker.committed(self.name, commits))
        self.standby, self.leadership = None, lead

    @property
    def source(self) -> Followed:
        """What folds the log in this process."""
        source = self.standby or (self.leadership.writer if self.leadership is not None else None)
        assert source is not None
        return source

    @property
    def leads(self) -> bool:
        """Whether clients find a leader here."""
        return not self.process.dead and self.leadership is not None and self.leadership.writer.leading


class CoordinatorHost:
    """A machine and the supervisor that starts its coordinator again."""

    def __init__(self, name: str, shared: Shared, clock: SimClock, draw: random.Random) -> None:
        self.name = name
        self.clock = clock
        self.current: Incarnation | None = None
        self.unexpected: list[BaseException] = []
        self.cut_off = False
        self._shared = shared
        self._draw = draw
        self._starts = 0

    async def supervise(self) -> None:
        """Starts a coordinator whenever there is none."""
        while True:
            current = self.current = self._start()
            task = current.process.spawn(self._serve(current))
            await asyncio.wait({task})
            current.process.kill()
            current.lease.disconnect()
            self._look(task)
            await asyncio.sleep(self._draw.uniform(0.05, 2.0))

    def _start(self) -> Incarnation:
        self._starts += 1
        shared = self._shared
        log, lease = SimLog(shared.store), SimLease(shared.leases, shared.store)
        if self.cut_off:
            log.cut()
            lease.disconnect()
        name = f"{self.name}#{self._starts}"
        entropy = SeededEntropy(random.Random(f"{shared.seed}/{name}").getrandbits(60))
        chance = random.Random(f"{shared.seed}/{name}/chunks")
        return Incarnation(name, Process(shared.broker), log, lease, shared.checker, entropy, chance)

    async def _serve(self, current: Incarnation) -> None:
        entropy = current.entropy
        address = f"{self.name}:7400"
        member = Member(
            log=current.log,
            campaign=Campaign(current.lease, self.clock, Holder(self.name, address, entropy.draw(12).hex())),
            open_ends=lambda: self._open_ends(current),
            clock=self.clock,
            entropy=entropy,
            settings=LeadSettings(self.name, "0", PresenceSettings(address)),
            stage=current,
            hints=self._hints,
        )
        start = await restore(self._shared.snapshots, current.log)
        current.follow(Standby(current.log, self.clock, start))
        snapshotter = Snapshotter(
            self._shared.snapshots,
            entropy,
            lambda: current.source,
            lambda: member.tenure is not None,
            self._shared.snapshot_records,
        )
        current.process.spawn(snapshotter.run())
        await member.run(start, current.stop)

    @asynccontextmanager
    async def _open_ends(self, current: Incarnation) -> AsyncIterator[Ends]:
        connection = self._shared.broker.connect(current.process.owner)
        if self.cut_off:
            connection.disconnect()
        current.process.connections.append(connection)
        current.chunks = SimChunks(connection, self._shared.chunks, current.chance)
        archiver = Archiver(current.log, self._shared.store.archive, self.clock, keep=self._shared.keep_segments)
        archiving = current.process.spawn(archiver.run())
        try:
            yield Ends(
                current.log,
                connection.signals(),
                connection.work_sender(),
                connection.result_receiver(),
                replace(self._shared.job_keys, chunks=current.chunks),
                connection.event_sender(),
                Signing(connection.checkpoints(), self._shared.signing_keys, current.entropy),
            )
        finally:
            archiving.cancel()
            self._shared.broker.close(connection)

    @asynccontextmanager
    async def _hints(self, nudge: Callable[[], None]) -> AsyncIterator[None]:
        self._shared.store.hints.append(nudge)
        try:
            yield
        finally:
            self._shared.store.hints.remove(nudge)

    def kill(self) -> None:
        """The coordinator dies without a word."""
        if self.current is not None:
            self.current.process.kill()
            self.current.lease.disconnect()

    def hand_over(self) -> None:
        """As SIGTERM."""
        if self.current is not None:
            self.current.process.owner.call(self.current.stop.set)

    def freeze(self) -> None:
        """As SIGSTOP."""
        if self.current is not None and not self.current.process.dead:
            self.current.process.owner.freeze()

    def thaw(self) -> None:
        """As SIGCONT."""
        if self.current is not None:
            self.current.process.owner.thaw()

    def cut(self) -> None:
        """The network between the machine and the broker is gone."""
        self.cut_off = True
        if self.current is not None and not self.current.process.dead:
            self.current.log.cut()
            self.current.lease.disconnect()
            for connection in self.current.process.connections:
                connection.disconnect()

    def heal(self) -> None:
        """The network is back."""
        self.cut_off = False
        if self.current is not None and not self.current.process.dead:
            self.current.log.mend()
            self.current.log.release()
            self.current.lease.reconnect()
            for connection in self.current.process.connections:
                if not connection.connected:
                    connection.reconnect()

    def _look(self, task: asyncio.Task[None]) -> None:
        """A coordinator may end of hivefold's errors only."""
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self.unexpected.extend(leaf for leaf in leaves(error) if not isinstance(leaf, HivefoldError))


class Group:
    """All coordinators, as their clients see them."""

    def __init__(self, hosts: list[CoordinatorHost]) -> None:
        self.hosts = hosts

    @property
    def leaders(self) -> list[Incarnation]:
        """Who leads, or has not noticed yet that another does."""
        return [host.current for host in self.hosts if host.current is not None and host.current.leads]

    async def call(self, body: CommandBody, draw: random.Random) -> Accepted | Rejected | None:
        """What a client's call gives; None when nobody answers."""
        return await self._ask(draw, lambda lead, _: lead.writer.execute(body))

    async def rotate(self, request_id: RequestId, draw: random.Random) -> SigningKey | None:
        """Has another key sign; None when nobody answers."""

        async def rotated(lead: Leadership, _: ChunkStore) -> SigningKey:
            assert lead.checkpoints is not None
            return await lead.checkpoints.rotate(request_id)

        return await self._ask(draw, rotated)

    async def register(self, name: ModelName, content: str, draw: random.Random) -> Accepted | Rejected | None:
        """Has a model file stored and registered as its next version; None when nobody answers."""

        async def registered(lead: Leadership, chunks: ChunkStore) -> Accepted | Rejected:
            async with lead.artifacts.adding():
                model = await stored_model(chunks, name, content)
                return await lead.writer.execute(RegisterModel(model))

        return await self._ask(draw, registered)

    def look_up(self, reference: str, draw: random.Random) -> Model | None:
        """What a leader that answers says that a name stands for. Raises UnavailableError where none does."""
        leaders = [leader for leader in self.leaders if not leader.process.owner.frozen]
        if not leaders:
            raise UnavailableError("nobody answers")
        lead = draw.choice(leaders).leadership
        assert lead is not None
        return resolve(lead.writer.state, reference)

    async def _ask(
        self, draw: random.Random, question: Callable[[Leadership, ChunkStore], Coroutine[Any, Any, T]]
    ) -> T | None:
        leaders = self.leaders
        if not leaders:
            return None
        leader = draw.choice(leaders)
        assert leader.leadership is not None
        assert leader.chunks is not None
        task = leader.process.spawn(question(leader.leadership, leader.chunks))
        await asyncio.wait({task}, timeout=_ANSWER_S)
        if not task.done() or task.cancelled():
            return None
        error = task.exception()
        if isinstance(error, HivefoldError):
            return None
        return task.result()

    def check_standbys(self, checker: Checker) -> None:
        """A standby's state is the fold of the log at its position."""
        for host in self.hosts:
            current = host.current
            if current is not None and not current.process.dead and current.standby is not None:
                checker.followed(current.name, current.standby.state)

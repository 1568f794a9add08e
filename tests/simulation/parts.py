"""The bus of the simulation: the fake in memory; messages reach processes, acknowledgements are seen by the checker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from hivefold.bus.memory import MemoryBroker, MemoryConnection
from hivefold.bus.memory_ends import MemoryDelivery, MemoryResultReceiver, MemoryWorkReceiver
from hivefold.bus.port import Delivery, Message
from hivefold.v1 import work_pb2
from tests.simulation.checker import Checker
from tests.simulation.loop import Owner, VirtualLoop
from tests.simulation.witnesses import SimCheckpoints


@dataclass(slots=True)
class SimClock:
    """One machine's clocks: the wall clock may be set, the monotonic one never."""

    loop: VirtualLoop
    ahead_us: int = 0

    def now_us(self) -> int:
        """Unix time in microseconds."""
        return 1_700_000_000_000_000 + int(self.loop.now_s * 1e6) + self.ahead_us

    def monotonic_ms(self) -> int:
        """Milliseconds since the start."""
        return int(self.loop.now_s * 1000)


_EXPRESS: Final = "express."


class SimBroker(MemoryBroker):
    """The server of the bus; the checker sees what it stores."""

    def __init__(self, checker: Checker) -> None:
        super().__init__()
        self.checker = checker

    def store_result(self, subject: str, data: bytes) -> None:
        """Stores an outcome, unless the subject has one."""
        known = self._result_count
        super().store_result(subject, data)
        if self._result_count > known:
            self.checker.result_stored(self.results[self._result_count])

    def deliver_signal(self, message: Message) -> None:
        """Hands a message to every subscription of every connection that is up."""
        if message.subject.startswith(_EXPRESS):
            self.checker.outcome_told(message.subject.removeprefix(_EXPRESS))
        super().deliver_signal(message)

    def connect(self, owner: Owner | None = None) -> SimConnection:
        """A new connection, up at once."""
        assert owner is not None
        connection = SimConnection(self, owner)
        self._connections.append(connection)
        return connection

    def connect_for_checks(self) -> MemoryConnection:
        """A connection that no fault concerns."""
        return MemoryConnection(self)

    def close(self, connection: MemoryConnection) -> None:
        """A process died: its connection is gone for good."""
        connection.disconnect()
        if connection in self._connections:
            self._connections.remove(connection)

    def cut_all(self) -> None:
        """The server stops."""
        for connection in self._connections:
            connection.disconnect()


class SimConnection(MemoryConnection):
    """A connection whose acknowledgements the checker sees."""

    broker: SimBroker

    def __init__(self, broker: SimBroker, owner: Owner) -> None:
        super().__init__(broker)
        self._owner = owner

    def receive(self, message: Message) -> None:
        """Hands a message to the process: what sent it has no part in what becomes of it."""
        if self.hears(message.subject):
            self._owner.call(super().receive, message)

    def call_on_reconnect(self, callback: Callable[[], None]) -> None:
        """Calls `callback` inside the process."""
        super().call_on_reconnect(lambda: self._owner.call(callback))

    def result_receiver(self) -> MemoryResultReceiver:
        """The coordinator's end of the results stream."""
        return _ResultReceiver(self)

    def checkpoints(self) -> SimCheckpoints:
        """An end for checkpoints."""
        return SimCheckpoints(self, self.broker.checker)

    def watched_work(self, node_id: str, boot_id: str) -> _WorkReceiver:
        """A node's end of the work stream."""
        return _WorkReceiver(self, node_id, boot_id)


class _ResultReceiver(MemoryResultReceiver):
    async def acknowledge(self, up_to_sequence: int) -> None:
        broker = self._connection.broker
        assert isinstance(broker, SimBroker)
        broker.checker.results_acknowledged(up_to_sequence)
        await super().acknowledge(up_to_sequence)


class _WorkReceiver:
    """hivefold.bus.port.WorkReceiver."""

    def __init__(self, connection: SimConnection, node_id: str, boot_id: str) -> None:
        self._inner = MemoryWorkReceiver(connection, node_id)
        self._checker = connection.broker.checker
        self._names = (node_id, boot_id)

    async def deliveries(self) -> AsyncIterator[Delivery]:
        async for delivery in self._inner.deliveries():
            yield _Delivery(delivery, self._checker, self._names)

    async def close(self) -> None:
        await self._inner.close()


@dataclass(frozen=True, slots=True)
class _Delivery:
    inner: MemoryDelivery
    checker: Checker
    names: tuple[str, str]

    @property
    def data(self) -> bytes:
        return self.inner.data

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.inner.headers)

    async def acknowledge(self) -> None:
        self.checker.work_acknowledged(*self.names, work_pb2.WorkBatch.FromString(self.inner.data))
        await self.inner.acknowledge()

    async def in_progress(self) -> None:
        await self.inner.in_progress()

    async def give_back(self) -> None:
        await self.inner.give_back()

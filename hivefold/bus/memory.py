"""The bus in one process, for tests and the simulation: deterministic, with faults on demand.

A MemoryBroker stands for the server, a MemoryConnection for one process's connection to it. Nothing
here starts a task or reads a clock: signals are delivered inside publish, and what a server does after
a wait happens when the test says so (release, redeliver, restart).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from hivefold.bus.memory_ends import (
    MemoryCheckpoints,
    MemoryEventSender,
    MemoryResultReceiver,
    MemoryResultSender,
    MemorySignals,
    MemorySubscription,
    MemoryWorkReceiver,
    MemoryWorkSender,
    subject_matches,
)
from hivefold.bus.port import Kept, Message, ResultMessage
from hivefold.errors import BrokerUnavailableError


class Fault(Enum):
    """What happens to a message under way."""

    PASS = auto()
    DROP = auto()
    """A signal vanishes; a work delivery is lost until redeliver()."""
    REPEAT = auto()
    """It arrives twice. Results never do: their stream keeps the first."""
    DELAY = auto()
    """It waits for release(); so does the sender of an outcome, which must know that it is stored."""


class Changes:
    """Lets coroutines wait for the next change; wakes them in the order in which they came."""

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    async def next(self) -> None:
        """Waits for the next change of anything."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def announce(self) -> None:
        """Something changed."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


@dataclass(slots=True)
class WorkQueue:
    """One node's consumer: what is to be delivered, and what was and is not answered."""

    waiting: deque[tuple[int, Message]] = field(default_factory=deque)
    unanswered: dict[int, Message] = field(default_factory=dict)


class MemoryBroker:
    """The server. `fault` decides what happens to each message, by subject; it passes all by default."""

    def __init__(self, fault: Callable[[str], Fault] = lambda _subject: Fault.PASS) -> None:
        self.fault = fault
        self.events: list[tuple[str, bytes, int]] = []
        self.checkpoints: list[Kept] = []
        """All that was sent to the event stream: subject, bytes, record sequence."""
        self.results: dict[int, ResultMessage] = {}
        """Stored outcomes by position."""
        self.results_max_bytes = 0
        """Room for them; it is watched by receivers and, unlike a server's, never full. 0: as much as there is."""
        self.acknowledged = 0
        """Position up to which the coordinator has recorded outcomes."""
        self._connections: list[MemoryConnection] = []
        self._work: dict[str, WorkQueue] = {}
        self._outcome_subjects: set[str] = set()
        self._held: list[Callable[[], None]] = []
        self._work_count = 0
        self._result_count = 0
        self.changes = Changes()

    def connect(self) -> MemoryConnection:
        """A new connection, up at once."""
        connection = MemoryConnection(self)
        self._connections.append(connection)
        return connection

    def release(self) -> None:
        """Lets delayed messages go, in their order."""
        held, self._held = self._held, []
        for deliver in held:
            deliver()

    def redeliver(self, node_id: str) -> None:
        """As if the wait for acknowledgements had passed: unanswered work comes again."""
        queue = self._work.get(node_id)
        if queue is not None:
            queue.waiting.extend(queue.unanswered.items())
            queue.unanswered.clear()
            self.changes.announce()

    def restart(self) -> None:
        """As kill -9 and a restart of the server: work is gone, results and events stay, all reconnect."""
        self._work.clear()
        for connection in tuple(self._connections):
            connection.disconnect()
        for connection in tuple(self._connections):
            connection.reconnect()

    # -- what the ends call -----------------------------------------------------

    def carry(self, subject: str, deliver: Callable[[], None], lose: Callable[[], None] | None = None) -> None:
        """Delivers now, twice, later or never, as `fault` says; `lose` tells what never means."""
        match self.fault(subject):
            case Fault.DROP:
                if lose is not None:
                    lose()
            case Fault.DELAY:
                self._held.append(deliver)
            case Fault.REPEAT:
                deliver()
                deliver()
            case Fault.PASS:
                deliver()

    def deliver_signal(self, message: Message) -> None:
        """Hands a message to every subscription of every connection that is up."""
        for connection in tuple(self._connections):
            connection.receive(message)

    def work_queue(self, node_id: str, *, make: bool = False) -> WorkQueue | None:
        """The node's consumer, if there is one."""
        if make:
            self._work.setdefault(node_id, WorkQueue())
        return self._work.get(node_id)

    def drop_work(self, node_id: str) -> None:
        """Drops the node's consumer with its work."""
        self._work.pop(node_id, None)

    def add_work(self, node_id: str, message: Message) -> None:
        """Queues a WorkBatch, unless the consumer is gone by now."""
        queue = self._work.get(node_id)
        if queue is None:
            return
        self._work_count += 1
        queue.waiting.append((self._work_count, message))
        self.changes.announce()

    def lose_delivery(self, node_id: str, message: Message) -> None:
        """Queues a WorkBatch whose first delivery gets lost on its way."""
        queue = self._work.get(node_id)
        if queue is not None:
            self._work_count += 1
            queue.unanswered[self._work_count] = message

    def store_result(self, subject: str, data: bytes) -> None:
        """Stores an outcome, unless the subject has one."""
        if subject in self._outcome_subjects:
            return
        self._outcome_subjects.add(subject)
        self._result_count += 1
        self.results[self._result_count] = ResultMessage(self._result_count, subject, data)
        self.changes.announce()

    def purge_results(self, job_id: str) -> None:
        """Drops the acknowledged outcomes of a job."""
        pattern = f"results.*.{job_id}.>"
        gone = [
            found
            for found in self.results.values()
            if found.sequence <= self.acknowledged and subject_matches(pattern, found.subject)
        ]
        self._drop(gone)

    def drop_results(self, before: int) -> int:
        """Drops the oldest quarter, of what is acknowledged and before a position; how many."""
        first = min(self.results, default=self._result_count + 1)
        quarter = first + (self._result_count - first) // 4
        end = min(before, self.acknowledged + 1, quarter + 1)
        gone = [found for found in self.results.values() if found.sequence < end]
        self._drop(gone)
        return len(gone)

    @property
    def results_bytes(self) -> int:
        """What the stored outcomes take."""
        return sum(len(found.data) for found in self.results.values())

    def _drop(self, gone: Sequence[ResultMessage]) -> None:
        for found in gone:
            del self.results[found.sequence]
            self._outcome_subjects.discard(found.subject)

    def results_after(self, sequence: int) -> Sequence[ResultMessage]:
        """Outcomes stored later than a position, in order."""
        return [self.results[at] for at in range(sequence + 1, self._result_count + 1) if at in self.results]


class MemoryConnection:
    """One process's connection. Also makes all ends of the bus."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.connected = True
        self._subscriptions: list[MemorySubscription] = []
        self._callbacks: list[Callable[[], None]] = []

    def disconnect(self) -> None:
        """The connection breaks: nothing comes or goes."""
        self.connected = False

    def reconnect(self) -> None:
        """The connection is up again; whoever asked for it is told."""
        self.connected = True
        self.broker.changes.announce()
        for callback in tuple(self._callbacks):
            callback()

    def signals(self) -> MemorySignals:
        """An end for signals."""
        return MemorySignals(self)

    def work_sender(self) -> MemoryWorkSender:
        """The coordinator's end of the work stream."""
        return MemoryWorkSender(self)

    def work_receiver(self, node_id: str) -> MemoryWorkReceiver:
        """A node's end of the work stream."""
        return MemoryWorkReceiver(self, node_id)

    def result_sender(self) -> MemoryResultSender:
        """A node's end of the results stream."""
        return MemoryResultSender(self)

    def result_receiver(self) -> MemoryResultReceiver:
        """The coordinator's end of the results stream."""
        return MemoryResultReceiver(self)

    def checkpoints(self) -> MemoryCheckpoints:
        """A new end for checkpoints."""
        return MemoryCheckpoints(self)

    def event_sender(self) -> MemoryEventSender:
        """The coordinator's end of the event stream."""
        return MemoryEventSender(self)

    # -- what the ends call -----------------------------------------------------

    def require_up(self) -> None:
        """Raises BrokerUnavailableError while the connection is down."""
        if not self.connected:
            raise BrokerUnavailableError("the broker connection is down; wait for the reconnect")

    async def until_up(self) -> None:
        """Waits until the connection is up."""
        while not self.connected:
            await self.broker.changes.next()

    def call_on_reconnect(self, callback: Callable[[], None]) -> None:
        """Calls `callback` after each reconnect."""
        self._callbacks.append(callback)

    def add_subscription(self, subject: str, handler: Callable[[Message], None]) -> MemorySubscription:
        """A new subscription."""
        subscription = MemorySubscription(subject, handler, self._subscriptions)
        self._subscriptions.append(subscription)
        return subscription

    def hears(self, subject: str) -> bool:
        """Whether anybody at this connection wants messages on `subject`, and it is up."""
        if self.connected:
            for subscription in self._subscriptions:
                if subject_matches(subscription.pattern, subject):
                    return True
        return False

    def receive(self, message: Message) -> None:
        """Hands a message to the subscriptions that match."""
        if self.connected:
            for subscription in tuple(self._subscriptions):
                subscription.receive(message)

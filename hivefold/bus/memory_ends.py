"""The ends of the bus in one process: what hivefold.bus.memory hands out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from hivefold.bus import frames
from hivefold.bus.port import Kept, Message, ResultMessage
from hivefold.errors import FencedError, NotFoundError
from hivefold.limits import RESULTS_CROWDED_PERCENT

if TYPE_CHECKING:
    from hivefold.bus.memory import MemoryConnection, WorkQueue


@lru_cache(maxsize=4096)
def subject_matches(pattern: str, subject: str) -> bool:
    """Whether a subscription to `pattern` (with `*` and a final `>`) gets messages on `subject`."""
    wanted, found = pattern.split("."), subject.split(".")
    for index, part in enumerate(wanted):
        if part == ">":
            return len(found) > index
        if index >= len(found) or part not in {"*", found[index]}:
            return False
    return len(wanted) == len(found)


class MemorySubscription:
    """hivefold.bus.port.Subscription."""

    def __init__(self, pattern: str, handler: Callable[[Message], None], siblings: list[MemorySubscription]) -> None:
        self.pattern = pattern
        self._handler = handler
        self._siblings = siblings

    def receive(self, message: Message) -> None:
        """Calls the handler if the subject matches."""
        if subject_matches(self.pattern, message.subject) and self in self._siblings:
            self._handler(message)

    async def stop(self) -> None:
        """Ends it; the handler is not called again afterwards."""
        if self in self._siblings:
            self._siblings.remove(self)


class MemorySignals:
    """hivefold.bus.port.Signals."""

    def __init__(self, connection: MemoryConnection) -> None:
        self._connection = connection

    @property
    def connected(self) -> bool:
        """Whether the connection is up now."""
        return self._connection.connected

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Calls `callback` after each reconnect."""
        self._connection.call_on_reconnect(callback)

    def publish(self, message: Message) -> None:
        """Delivers to all subscribers before it returns. Raises InvalidRequestError for a malformed subject."""
        frames.subject_bytes(message.subject)
        if self._connection.connected:
            broker = self._connection.broker
            sent = Message(message.subject, message.data, _lowered(message.headers))
            broker.carry(sent.subject, lambda: broker.deliver_signal(sent))

    async def subscribe(self, subject: str, handler: Callable[[Message], None]) -> MemorySubscription:
        """Calls `handler` for each message."""
        return self._connection.add_subscription(subject, handler)


class MemoryWorkSender:
    """hivefold.bus.port.WorkSender."""

    def __init__(self, connection: MemoryConnection) -> None:
        self._connection = connection

    async def prepare(self, node_id: str) -> None:
        """Makes the node's consumer."""
        self._connection.require_up()
        self._connection.broker.work_queue(node_id, make=True)
        self._connection.broker.changes.announce()

    async def send(self, node_id: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Queues one WorkBatch."""
        await self.prepare(node_id)
        broker = self._connection.broker
        message = Message(f"work.{node_id}", data, _lowered(headers or {}))
        broker.carry(
            message.subject,
            lambda: broker.add_work(node_id, message),
            lambda: broker.lose_delivery(node_id, message),
        )

    async def forget(self, node_id: str) -> None:
        """Drops the node's waiting work and its consumer."""
        self._connection.require_up()
        self._connection.broker.drop_work(node_id)


class MemoryDelivery:
    """hivefold.bus.port.Delivery."""

    def __init__(self, connection: MemoryConnection, node_id: str, number: int, message: Message) -> None:
        self._connection = connection
        self._node_id = node_id
        self._number = number
        self._message = message

    @property
    def data(self) -> bytes:
        """The WorkBatch."""
        return self._message.data

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers, names in lower case."""
        return self._message.headers

    async def acknowledge(self) -> None:
        """Done: it will not come again."""
        self._take_back()

    async def in_progress(self) -> None:
        """Nothing to do: waits end when the test says so."""

    async def give_back(self) -> None:
        """Not done: it comes again at once."""
        queue = self._take_back()
        if queue is not None:
            queue.waiting.append((self._number, self._message))
            self._connection.broker.changes.announce()

    def _take_back(self) -> WorkQueue | None:
        if not self._connection.connected:
            return None
        queue = self._connection.broker.work_queue(self._node_id)
        return queue if queue is not None and queue.unanswered.pop(self._number, None) is not None else None


class MemoryWorkReceiver:
    """hivefold.bus.port.WorkReceiver."""

    def __init__(self, connection: MemoryConnection, node_id: str) -> None:
        self._connection = connection
        self._node_id = node_id
        self._closed = False

    async def deliveries(self) -> AsyncIterator[MemoryDelivery]:
        """Yields deliveries until close()."""
        broker = self._connection.broker
        while not self._closed:
            queue = broker.work_queue(self._node_id)
            if self._connection.connected and queue is not None and queue.waiting:
                number, message = queue.waiting.popleft()
                queue.unanswered[number] = message
                yield MemoryDelivery(self._connection, self._node_id, number, message)
            else:
                await broker.changes.next()

    async def close(self) -> None:
        """Ends the iteration."""
        self._closed = True
        self._connection.broker.changes.announce()


class MemoryResultSender:
    """hivefold.bus.port.ResultSender."""

    def __init__(self, connection: MemoryConnection) -> None:
        self._connection = connection

    async def send(self, outcomes: Sequence[tuple[str, bytes]]) -> None:
        """Stores the outcomes; waits while the connection is down or a fault delays them.

        Raises LimitExceededError for an outcome that is too large; nothing is stored then.
        """
        for subject, data in outcomes:
            frames.check_length(subject, len(data))
        await self._connection.until_up()
        unanswered = {subject for subject, _ in outcomes}
        for subject, data in outcomes:
            self._store(subject, data, unanswered)
        while unanswered:
            await self._connection.broker.changes.next()

    def _store(self, subject: str, data: bytes, unanswered: set[str]) -> None:
        broker = self._connection.broker

        def store() -> None:
            broker.store_result(subject, data)
            unanswered.discard(subject)  # answered, even if the outcome is purged before the sender looks
            broker.changes.announce()

        # A lost publish has no answer, so the sender publishes again: in effect, nothing is lost.
        broker.carry(subject, store, store)


class MemoryResultReceiver:
    """hivefold.bus.port.ResultReceiver."""

    def __init__(self, connection: MemoryConnection) -> None:
        self._connection = connection
        self._closed = False

    async def batches(self) -> AsyncIterator[Sequence[ResultMessage]]:
        """Yields what has come since, in order, until close()."""
        broker = self._connection.broker
        handed_over = broker.acknowledged
        while not self._closed:
            fresh = broker.results_after(handed_over) if self._connection.connected else ()
            if fresh:
                handed_over = fresh[-1].sequence
                yield fresh
            else:
                await broker.changes.next()

    async def acknowledge(self, up_to_sequence: int) -> None:
        """Everything up to this position is recorded: it will not come again."""
        broker = self._connection.broker
        broker.acknowledged = max(broker.acknowledged, up_to_sequence)

    async def get(self, sequence: int) -> ResultMessage:
        """The outcome stored at a position. Raises NotFoundError, BrokerUnavailableError."""
        self._connection.require_up()
        found = self._connection.broker.results.get(sequence)
        if found is None:
            raise NotFoundError(f"no outcome is stored at {sequence}; its job's results may have been purged")
        return found

    async def purge_job(self, job_id: str) -> None:
        """Drops the stored outcomes of a job, as far as they are acknowledged. Raises BrokerUnavailableError."""
        self._connection.require_up()
        self._connection.broker.purge_results(job_id)

    async def is_crowded(self) -> bool:
        """Whether little room is left for outcomes. Raises BrokerUnavailableError."""
        self._connection.require_up()
        broker = self._connection.broker
        return 0 < broker.results_max_bytes * RESULTS_CROWDED_PERCENT <= broker.results_bytes * 100

    async def drop_oldest(self, before: int) -> int:
        """Drops a quarter, of what is acknowledged and before a position; how many. Raises BrokerUnavailableError."""
        self._connection.require_up()
        return self._connection.broker.drop_results(before)

    async def close(self) -> None:
        """Ends batches()."""
        self._closed = True
        self._connection.broker.changes.announce()


class MemoryEventSender:
    """hivefold.bus.port.EventSender."""

    def __init__(self, connection: MemoryConnection) -> None:
        self._connection = connection

    async def send(self, events: Sequence[tuple[str, bytes, int]]) -> None:
        """Stores events in order; waits while the connection is down. Subscribers get them too."""
        await self._connection.until_up()
        broker = self._connection.broker
        for subject, data, sequence in events:
            broker.events.append((subject, data, sequence))
            broker.deliver_signal(Message(subject, data, {"hivefold-sequence": str(sequence)}))

    async def last_sequence(self) -> int:
        """Record sequence of the last stored event; 0 when there is none."""
        self._connection.require_up()
        events = self._connection.broker.events
        return events[-1][2] if events else 0


class MemoryCheckpoints:
    """hivefold.bus.port.CheckpointStream."""

    def __init__(self, connection: MemoryConnection) -> None:
        self._connection = connection

    async def last(self) -> Kept | None:
        """The last checkpoint; None when there is none. Raises BrokerUnavailableError."""
        kept = self._kept()
        return kept[-1] if kept else None

    async def next(self, index: int) -> Kept | None:
        """The first one at `index` or after; None when there is none. Raises BrokerUnavailableError."""
        return next((found for found in self._kept() if found.index >= index), None)

    async def store(self, data: bytes, *, after: int) -> int:
        """Stores a checkpoint right after the one at `after`; see CheckpointStream.store."""
        kept = self._kept()
        end = kept[-1].index if kept else 0
        if after != end:
            if kept and kept[-1].data == data:
                return end
            raise FencedError("another coordinator signed a checkpoint; this one stops leading")
        kept.append(Kept(end + 1, data))
        return end + 1

    def _kept(self) -> list[Kept]:
        self._connection.require_up()
        return self._connection.broker.checkpoints


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}

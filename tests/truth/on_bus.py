"""Operations on the bus: work, outcomes, signals, events, chunks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hivefold.bus.port import Message
from hivefold.errors import HivefoldError
from hivefold.limits import BROKER_MESSAGE_BYTES
from tests.truth.cast import Cast
from tests.truth.operations import Operation
from tests.truth.sides import FakeSide


async def take_all_work(cast: Cast, node: str, due: int) -> object:
    """What the node is handed: new work in its order, then what comes again in any."""
    taken = await cast.take_work(node, due)
    new = [(d.data, dict(d.headers)) for d in taken if d.data not in cast.seen]
    again = sorted(d.data for d in taken if d.data in cast.seen)
    cast.seen.update(d.data for d in taken)
    return new, again


@dataclass(frozen=True)
class OnNode(Operation):
    """Something that concerns one node. Takes its waiting work first where that could be lost on its way."""

    node: str

    def foresee(self, cast: Cast, fake: FakeSide) -> int:
        return fake.waiting_work(self.node)


@dataclass(frozen=True)
class SendWork(Operation):
    """A WorkBatch for a node."""

    node: str
    size: int
    headers: Mapping[str, str] = field(default_factory=dict)

    async def on(self, cast: Cast, due: int) -> object:
        await cast.side.work.send(self.node, b"work %d " % cast.unique() + bytes(self.size), dict(self.headers))
        return None


@dataclass(frozen=True)
class PrepareNode(Operation):
    """Makes a node's consumer, or finds it there."""

    node: str

    async def on(self, cast: Cast, due: int) -> object:
        await cast.side.work.prepare(self.node)
        return None


@dataclass(frozen=True)
class TakeWork(OnNode):
    """A node takes all that waits for it."""

    async def on(self, cast: Cast, due: int) -> object:
        return await take_all_work(cast, self.node, due)


@dataclass(frozen=True)
class AnswerWork(Operation):
    """A node answers one of the deliveries it has in hand, new or long gone."""

    node: str
    place: int
    verdict: str

    async def on(self, cast: Cast, due: int) -> object:
        hand = cast.hands[self.node]
        if not hand:
            return None
        delivery = hand[self.place % len(hand)]
        match self.verdict:
            case "acknowledge":
                hand.remove(delivery)
                await delivery.acknowledge()
            case "give back":
                hand.remove(delivery)
                await delivery.give_back()
            case _:
                await delivery.in_progress()
        return delivery.data


@dataclass(frozen=True)
class ForgetNode(OnNode):
    """The coordinator drops a node's work and its consumer."""

    async def on(self, cast: Cast, due: int) -> object:
        taken = await take_all_work(cast, self.node, due)
        await cast.side.work.forget(self.node)
        cast.hands[self.node].clear()
        return taken


@dataclass(frozen=True)
class SendOutcomes(Operation):
    """A node sends outcomes; some subjects may have theirs."""

    node: str
    job: int
    first: int
    count: int
    large: bool = False

    async def on(self, cast: Cast, due: int) -> object:
        outcomes = [
            (f"results.{self.node}.job-{self.job}.{task}.1", b"%d of %d" % (task, cast.unique()))
            for task in range(self.first, self.first + self.count)
        ]
        if self.large:
            outcomes.append((f"results.{self.node}.job-{self.job}.9.9", bytes(BROKER_MESSAGE_BYTES)))
        try:
            await cast.side.results[self.node].send(outcomes)
        except HivefoldError as error:
            return type(error).__name__
        return None


class _WithOutcomes(Operation):
    def foresee(self, cast: Cast, fake: FakeSide) -> int:
        return len(fake.broker.results_after(cast.handed_over))


@dataclass(frozen=True)
class TakeOutcomes(_WithOutcomes):
    """The coordinator takes all that has come."""

    async def on(self, cast: Cast, due: int) -> object:
        return await cast.take_outcomes(due)


@dataclass(frozen=True)
class AcknowledgeOutcomes(Operation):
    """The coordinator has recorded the first so many of what it took."""

    place: int

    async def on(self, cast: Cast, due: int) -> object:
        if not cast.outcomes:
            return None
        done = self.place % len(cast.outcomes)
        cast.acknowledged = cast.outcomes[done].sequence
        del cast.outcomes[: done + 1]
        await cast.receiver.acknowledge(cast.acknowledged)
        return cast.acknowledged


@dataclass(frozen=True)
class GetOutcome(Operation):
    """Reads the outcome at a position, counted from the last that was handed over."""

    back: int

    async def on(self, cast: Cast, due: int) -> object:
        try:
            return await cast.receiver.get(max(1, cast.handed_over - self.back))
        except HivefoldError as error:
            return type(error).__name__


@dataclass(frozen=True)
class PurgeJob(_WithOutcomes):
    """Drops the outcomes of a job that are acknowledged."""

    job: int

    async def on(self, cast: Cast, due: int) -> object:
        taken = await cast.take_outcomes(due)
        await cast.side.settle_results(cast.acknowledged)
        await cast.receiver.purge_job(f"job-{self.job}")
        return taken


@dataclass(frozen=True)
class RestartReceiver(_WithOutcomes):
    """The coordinator starts anew: what it had not acknowledged comes again."""

    async def on(self, cast: Cast, due: int) -> object:
        taken = await cast.take_outcomes(due)
        await cast.replace_receiver()
        return taken


@dataclass(frozen=True)
class Subscribe(Operation):
    """Listens to a pattern under a number; a number in use is left first."""

    number: int
    pattern: str

    async def on(self, cast: Cast, due: int) -> object:
        await _unsubscribe(cast, self.number)
        heard = cast.heard[self.number] = []
        signals = cast.side.signals if self.number % 2 else cast.side.node_signals
        cast.subscriptions[self.number] = await signals.subscribe(self.pattern, heard.append)
        await cast.side.settle_signals()
        return None


@dataclass(frozen=True)
class Unsubscribe(Operation):
    """Listens no more."""

    number: int

    async def on(self, cast: Cast, due: int) -> object:
        await _unsubscribe(cast, self.number)
        return None


@dataclass(frozen=True)
class Publish(Operation):
    """A signal; what every subscription hears of it."""

    subject: str
    headers: Mapping[str, str]

    async def on(self, cast: Cast, due: int) -> object:
        message = Message(self.subject, b"signal %d" % cast.unique(), dict(self.headers))
        try:
            cast.side.signals.publish(message)
        except HivefoldError as error:
            return type(error).__name__
        await cast.side.settle_signals()
        heard = {number: list(messages) for number, messages in cast.heard.items()}
        for messages in cast.heard.values():
            messages.clear()
        return heard


@dataclass(frozen=True)
class SendEvents(Operation):
    """Public events of some records."""

    count: int

    async def on(self, cast: Cast, due: int) -> object:
        events = [(f"events.job.job-{at % 2}", b"event", cast.unique()) for at in range(self.count)]
        await cast.side.events.send(events)
        return await cast.side.events.last_sequence()


@dataclass(frozen=True)
class PutChunk(Operation):
    """Stores a chunk; a stored key keeps what it has."""

    key: int
    size: int

    async def on(self, cast: Cast, due: int) -> object:
        data = b"%d " % cast.unique() + bytes(self.size)
        try:
            await cast.side.chunks.put(f"chunk.{self.key}", data)
        except HivefoldError as error:
            return type(error).__name__
        return None


@dataclass(frozen=True)
class GetChunk(Operation):
    """Reads a chunk, and asks whether it is there."""

    key: int

    async def on(self, cast: Cast, due: int) -> object:
        there = await cast.side.chunks.has(f"chunk.{self.key}")
        try:
            return there, await cast.side.chunks.get(f"chunk.{self.key}")
        except HivefoldError as error:
            return there, type(error).__name__


@dataclass(frozen=True)
class FillChunks(Operation):
    """The chunk store has no room for some puts."""

    async def on(self, cast: Cast, due: int) -> object:
        await cast.side.chunks.put("chunk.first", b"first")
        await cast.side.set_chunks_full(full=True)
        said = [await PutChunk(key, 10).on(cast, 0) for key in range(0, 12, 3)]
        await cast.side.set_chunks_full(full=False)
        return said


async def _unsubscribe(cast: Cast, number: int) -> None:
    subscription = cast.subscriptions.pop(number, None)
    cast.heard.pop(number, None)
    if subscription is not None:
        await subscription.stop()

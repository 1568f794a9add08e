"""One side as a script sees it: its ends, and what its processes hold in hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from hivefold.bus.port import Delivery, Message, ResultMessage, Subscription
from hivefold.log.port import Entry, EventLog, Head
from tests.truth.sides import NODES, WRITERS, ResultReceiver, Side

_PATIENCE_S = 20.0


@dataclass
class Writer:
    """A coordinator's idea of the log, right or wrong."""

    log: EventLog
    idea: Head = field(default_factory=lambda: Head(0, 0))
    last: tuple[tuple[Entry, ...], Head] = field(default_factory=lambda: ((), Head(0, 0)))
    """What it appended last, and after what."""


class Cast:
    """The processes on one side."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.writers = [Writer(log) for log in side.logs]
        self.leader = 0
        self.log_full = False
        self.hands: dict[str, list[Delivery]] = {node: [] for node in NODES}
        self._deliveries = {node: side.receivers[node].deliveries() for node in NODES}
        self.seen: set[bytes] = set()
        """Work that came before: it comes again in any order."""
        self._receiver: ResultReceiver | None = None
        self._batches: AsyncIterator[Sequence[ResultMessage]] | None = None
        self.outcomes: list[ResultMessage] = []
        """Handed over and not acknowledged."""
        self.handed_over = 0
        self.acknowledged = 0
        self.heard: dict[int, list[Message]] = {}
        self.subscriptions: dict[int, Subscription] = {}
        self.count = 0

    def unique(self) -> int:
        """A number that this world has not seen; the same on both sides."""
        self.count += 1
        return self.count

    def writer(self, *, leading: bool) -> Writer:
        """The last to begin a term, or the other."""
        return self.writers[self.leader if leading else (self.leader + 1) % WRITERS]

    async def take_work(self, node: str, due: int) -> list[Delivery]:
        """The next deliveries; fewer where they do not come."""
        taken: list[Delivery] = []
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while len(taken) < due:
                    taken.append(await anext(self._deliveries[node]))
        except TimeoutError:
            self._deliveries[node] = self.side.receivers[node].deliveries()
        # What comes again replaces what it repeats; it comes in any order, in the hand it has one.
        hand = {delivery.data: delivery for delivery in (*self.hands[node], *taken)}
        self.hands[node] = [hand[data] for data in sorted(hand)]
        return taken

    @property
    def receiver(self) -> ResultReceiver:
        """The coordinator's receiver of outcomes."""
        if self._receiver is None:
            self._receiver = self.side.new_result_receiver()
        return self._receiver

    async def take_outcomes(self, due: int) -> list[ResultMessage]:
        """The next outcomes; fewer where they do not come."""
        taken: list[ResultMessage] = []
        if self._batches is None:
            self._batches = self.receiver.batches()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while len(taken) < due:
                    taken += await anext(self._batches)
        except TimeoutError:
            self._batches = None
        self.outcomes += taken
        self.handed_over = max([self.handed_over, *(outcome.sequence for outcome in taken)])
        return taken

    async def replace_receiver(self) -> None:
        """As a coordinator that starts anew: what was not acknowledged comes again."""
        await self.side.settle_results(self.acknowledged)
        await self.receiver.close()
        self._receiver = self._batches = None
        self.outcomes.clear()
        self.handed_over = self.acknowledged

"""The way of outcomes to the results stream: what gathers while one send is in flight goes out with the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from hivefold.bus.port import Message, ResultSender, Signals
from hivefold.failpoints import Failpoint, reach
from hivefold.limits import EXPRESS_ITEMS, EXPRESS_STORE_MS
from hivefold.observe import ActiveSpan, span, tracing
from node.wire import Stored

_LINKS: Final = 100
"""Links of one span: most backends keep no more."""


@dataclass(frozen=True, slots=True)
class _Piece:
    outcomes: Sequence[Stored]
    when_stored: Callable[[], None]
    traceparent: str


class Uplink:
    """Sends outcomes. Bounded by what puts into it: a node accepts only so many attempts at once."""

    def __init__(self, sender: ResultSender, signals: Signals, *, batch_outcomes: int) -> None:
        self._sender = sender
        self._signals = signals
        self._batch_outcomes = batch_outcomes
        self._pieces: deque[_Piece] = deque()
        self._wake = asyncio.Event()

    def put(
        self,
        outcomes: Sequence[Stored],
        when_stored: Callable[[], None],
        traceparent: str = "",
        *,
        express: bool = False,
    ) -> None:
        """Takes outcomes over; calls `when_stored` once they are all stored durably.

        `express` ones (few, and without output bytes) that need not wait for others go out as signals, at once:
        the coordinator records them before the stream stores them. They are stored EXPRESS_STORE_MS later, or with
        what comes before: the disk is first needed for that record.
        """
        alone = express and not self._pieces and len(outcomes) <= EXPRESS_ITEMS
        self._pieces.append(_Piece(outcomes, when_stored, traceparent))
        if not alone:
            self._wake.set()
            return
        for subject, data in outcomes:
            self._signals.publish(Message(f"express.{subject}", data))
        asyncio.get_running_loop().call_later(EXPRESS_STORE_MS / 1000, self._wake.set)

    async def run(self) -> None:
        """Sends for ever. While the broker is away, the sender keeps trying."""
        while True:
            await self._wake.wait()
            taken = self._take()
            if not taken:
                self._wake.clear()
                continue
            reach(Failpoint.BEFORE_RESULT)
            with _span(taken):
                await self._sender.send([outcome for piece in taken for outcome in piece.outcomes])
            reach(Failpoint.AFTER_RESULT)
            for piece in taken:
                piece.when_stored()

    def _take(self) -> list[_Piece]:
        taken: list[_Piece] = []
        count = 0
        while self._pieces and (not taken or count + len(self._pieces[0].outcomes) <= self._batch_outcomes):
            piece = self._pieces.popleft()
            count += len(piece.outcomes)
            taken.append(piece)
        return taken


def _span(taken: Sequence[_Piece]) -> ActiveSpan:
    """One send for many causes: it belongs to the first one's trace and links to the others."""
    if not tracing():
        return span("send results")
    first, *others = dict.fromkeys(piece.traceparent for piece in taken)
    return span("send results", kind="producer", parent=first, links=others[:_LINKS])

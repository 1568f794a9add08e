"""Broken connections and a killed server."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.truth.cast import Cast
from tests.truth.on_bus import take_all_work
from tests.truth.operations import Operation
from tests.truth.sides import NODES, FakeSide


class _WithAll(Operation):
    """Takes everything first: what is on its way over a connection goes with it."""

    def foresee(self, cast: Cast, fake: FakeSide) -> int:
        due = len(fake.broker.results_after(cast.handed_over))
        for node in NODES:
            due = due * 1000 + fake.waiting_work(node)
        return due

    async def take_all(self, cast: Cast, due: int) -> object:
        taken: list[object] = []
        for node in reversed(NODES):
            due, count = divmod(due, 1000)
            taken.append(await take_all_work(cast, node, count))
        taken.append(await cast.take_outcomes(due))
        await cast.side.settle_results(cast.acknowledged)
        return taken


@dataclass(frozen=True)
class Cut(_WithAll):
    """Every connection breaks and comes back."""

    async def on(self, cast: Cast, due: int) -> object:
        taken = await self.take_all(cast, due)
        # What is given back over a new connection may wait for the end of the old one's pull; in the fake never.
        for hand in cast.hands.values():
            hand.clear()
        await cast.side.cut()
        return taken


@dataclass(frozen=True)
class RestartServer(_WithAll):
    """kill -9 of the server: what was in memory is gone, all else is there."""

    async def on(self, cast: Cast, due: int) -> object:
        taken = await self.take_all(cast, due)
        await cast.side.restart()
        # The server may have forgotten what was acknowledged last: the receiver tells it when it starts over.
        await cast.side.results[NODES[0]].send([(f"results.{NODES[0]}.marker-{cast.unique()}.1.1", b"after a restart")])
        return taken, await cast.take_outcomes(1)


def draw_fault(chance: Random) -> Operation:
    """A broken connection; now and then a killed server."""
    return RestartServer() if chance.random() < 0.2 else Cut()

"""The threads in which a node's models run: a few, that all models share."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

from actors.bridge import ask
from actors.model import Inferred, InferRows, LaneBehavior, OpenModel, Run
from actors.runtime import ActorRef, BehaviorFailedError, spawn
from actors.together import Batched, InferBatch
from hivefold.errors import HivefoldError, UnavailableError
from node.residency.limits import RUNS_A_SLOT

Lane: TypeAlias = ActorRef[Run, Inferred | Batched]


class Lanes:
    """Runs at most RUNS_A_SLOT batches for each slot at once; the others wait in the order in which they came."""

    def __init__(self, slots: int = 1) -> None:
        self._turns = asyncio.Semaphore(RUNS_A_SLOT * slots)
        self._lanes: set[Lane] = set()
        self._idle: list[Lane] = []
        """The one that ran last is the next: its thread may not even have gone to sleep."""

    async def run(self, model: OpenModel, what: InferRows | InferBatch, *, deadline_ms: int) -> Inferred | Batched:
        """Runs a model when it is this run's turn, for at most `deadline_ms` from then on.

        Raises HivefoldError: what the model refuses, and what became of a lane that failed or hangs. That one is
        replaced, as is one that somebody left while it ran.
        """
        async with self._turns:
            lane = self._idle.pop() if self._idle else self._opened()
            try:
                reply = await ask(lane, Run(model, what), deadline_ms=deadline_ms)
            except BaseException as error:
                if isinstance(error, HivefoldError) and not isinstance(error, BehaviorFailedError | UnavailableError):
                    self._idle.append(lane)
                else:
                    self._lanes.discard(lane)
                    lane.stop()
                raise
            self._idle.append(lane)
            return reply

    def stop(self) -> tuple[Lane, ...]:
        """Tells every lane to end; the lanes, for whoever wants to wait."""
        for lane in self._lanes:
            lane.stop()
        return tuple(self._lanes)

    def _opened(self) -> Lane:
        lane = self._open()
        self._lanes.add(lane)
        return lane

    def _open(self) -> Lane:
        return spawn(LaneBehavior, name=f"lane-{len(self._lanes)}")

"""The threads in which models run: as many as there are turns, whatever the models; none of them is waited for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from actors.backends.echo import EchoSession
from actors.bridge import AskTimeoutError
from actors.model import Inferred, InferRows, OpenModel
from actors.tensors import Array, Layout
from hivefold.errors import DataRefusedError
from node.lanes import Lanes
from node.residency.limits import RUNS_A_SLOT

ROWS = InferRows(np.zeros((2, 4), "<f4").tobytes(), Layout("FP32", (4,)), 0, 2)


class Threads(EchoSession):
    """Notes which threads run it; waits at its gate."""

    def __init__(self, seen: set[int], gate: threading.Event | None = None) -> None:
        super().__init__([])
        self.entered = threading.Event()
        self._seen = seen
        self._gate = gate

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        self._seen.add(threading.get_ident())
        self.entered.set()
        if self._gate is not None:
            self._gate.wait(10)
        return super().run(outputs, feeds)


async def run(lanes: Lanes, session: EchoSession, deadline_ms: int = 10_000) -> None:
    reply = await lanes.run(OpenModel(session), ROWS, deadline_ms=deadline_ms)
    assert isinstance(reply, Inferred)


async def test_many_models_share_few_threads() -> None:
    """One after the other they have the same one; at once they have no more than there are turns."""
    lanes, seen = Lanes(2), set[int]()
    for _ in range(5):
        await run(lanes, Threads(seen))
    assert len(seen) == 1
    await asyncio.gather(*(run(lanes, Threads(seen)) for _ in range(50)))
    assert len(seen) <= 2 * RUNS_A_SLOT
    assert len(lanes.stop()) == len(seen)


async def test_a_lane_whose_model_hangs_holds_up_nobody() -> None:
    """It is replaced once its time is over, and so is one whose caller left while it ran."""
    lanes, gate = Lanes(), threading.Event()
    stuck = [Threads(set(), gate) for _ in range(2)]
    left = asyncio.create_task(run(lanes, stuck[0]))
    assert await asyncio.to_thread(stuck[0].entered.wait, 10)
    left.cancel()
    with pytest.raises(AskTimeoutError):
        await run(lanes, stuck[1], deadline_ms=10)
    await asyncio.gather(*(run(lanes, Threads(set())) for _ in range(10)))
    gate.set()
    assert left.cancelled()
    lanes.stop()


async def test_what_a_model_refuses_leaves_its_lane_as_it_is() -> None:
    """The next run is in the same thread."""
    lanes, seen = Lanes(), set[int]()
    await run(lanes, Threads(seen))
    with pytest.raises(DataRefusedError):
        await lanes.run(OpenModel(EchoSession([])), InferRows(b"", Layout("FP32", (4,)), 0, 0), deadline_ms=1000)
    await run(lanes, Threads(seen))
    assert len(seen) == 1
    lanes.stop()

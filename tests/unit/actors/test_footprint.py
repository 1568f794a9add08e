"""What models are seen to take."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from actors.backends.echo import EchoSession
from actors.footprint import LOADING, Footprint, WeighedSession
from actors.tensors import Array
from hivefold.memory import allocated_bytes

pytestmark = pytest.mark.skipif(not allocated_bytes(), reason="this C library does not count")
MIB = 1024 * 1024


GIVEN = 64 * 1024
"""Bytes of output for each row: more than NumPy and the allocator keep ready, so that giving it moves memory."""


@pytest.fixture(autouse=True)
def no_garbage() -> None:
    """The whole process is counted: what earlier tests left must not be collected in the midst of a measurement."""
    gc.collect()


class Heavy(EchoSession):
    """Keeps a MiB for each row of the largest batch, as a runtime's arena does, and gives arrays of its own."""

    def __init__(self) -> None:
        super().__init__([])
        self.arena = np.ones(0, "u1")

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        rows = len(feeds["x"])
        if rows * MIB > self.arena.nbytes:
            self.arena = np.ones(rows * MIB, "u1")
        return [np.ones((rows, GIVEN), "u1") for _ in outputs]


def run(session: WeighedSession, rows: int) -> None:
    session.run(("echo",), {"x": np.zeros((rows, 4), "<f4")})


def test_a_model_is_weighed_by_loading_and_by_its_largest_batches() -> None:
    """By powers of two of rows; batches that are smaller than one before tell nothing new. What it gives is not its."""
    footprint, kept = Footprint(), []
    with footprint.weigh_load():
        kept.append(np.ones(4 * MIB, "u1"))
        session = Heavy()
    weighed = WeighedSession(session, footprint)
    for rows in (3, 2, 4, 1, 7):
        run(weighed, rows)
    assert set(footprint.peaks) == {LOADING, 4, 8}
    assert footprint.peaks[LOADING] >= 4 * MIB
    assert 8 * MIB <= footprint.peaks[4] - 4 * GIVEN < 9 * MIB
    assert 11 * MIB <= footprint.peaks[8] - 7 * GIVEN < 12 * MIB
    assert footprint.held_bytes == footprint.peaks[8] - 7 * GIVEN


def test_a_load_that_reuses_what_was_freed_is_weighed_all_the_same() -> None:
    """What is resident rises little then: the allocator's count is the least that a model is taken for."""
    footprint = Footprint()
    freed = [np.ones(100_000, "u1") for _ in range(200)]
    del freed
    with footprint.weigh_load():
        kept = [np.ones(100_000, "u1") for _ in range(200)]
    assert footprint.peaks[LOADING] >= footprint.held_bytes >= sum(array.nbytes for array in kept)


def test_what_others_moved_meanwhile_spoils_a_measurement() -> None:
    """It does not count, rather than be wrong; the next load of the model may."""
    spoilt, other = Footprint(), Footprint()
    with spoilt.weigh_load():
        first = np.ones(4 * MIB, "u1")
        with other.weigh_load():
            second = np.ones(4 * MIB, "u1")
    assert (spoilt.held_bytes, spoilt.peaks, other.peaks) == (0, {}, {})
    assert first.nbytes == second.nbytes


def test_a_model_that_does_not_load_weighs_nothing() -> None:
    """And lets others be weighed."""
    failed, other = Footprint(), Footprint()
    with pytest.raises(MemoryError), failed.weigh_load():
        raise MemoryError
    with other.weigh_load():
        kept = np.ones(4 * MIB, "u1")
    assert failed.peaks == {}
    assert other.held_bytes >= kept.nbytes

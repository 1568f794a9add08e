"""What models are seen to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from actors.backends.echo import EchoBackend, EchoSession
from actors.footprint import LOADING, Footprint, WeighedSession
from actors.tensors import Array
from hivefold.memory import allocated_bytes

pytestmark = pytest.mark.skipif(not allocated_bytes(), reason="this C library does not count")
MIB = 1024 * 1024


class Heavy(EchoSession):
    """Keeps a MiB for each row of the largest batch, as a runtime's arena does."""

    def __init__(self) -> None:
        super().__init__([])
        self.arena = np.ones(0, "u1")

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        rows = len(feeds["x"])
        if rows * MIB > self.arena.nbytes:
            self.arena = np.ones(rows * MIB, "u1")
        return super().run(outputs, feeds)


def run(session: WeighedSession, rows: int) -> None:
    session.run(("echo",), {"x": np.zeros((rows, 4), "<f4")})


def test_a_model_is_weighed_by_loading_and_by_its_largest_batches() -> None:
    """By powers of two of rows; batches that are smaller than one before tell nothing new."""
    footprint, kept = Footprint(), []
    with footprint.weigh_load():
        kept.append(np.ones(4 * MIB, "u1"))
        session = Heavy()
    weighed = WeighedSession(session, footprint)
    for rows in (3, 2, 4, 1, 7):
        run(weighed, rows)
    assert set(footprint.peaks) == {LOADING, 4, 8}
    assert footprint.peaks[LOADING] == pytest.approx(4.5 * MIB, abs=MIB / 2 + 4096)
    assert footprint.peaks[4] == pytest.approx(8.5 * MIB, abs=MIB / 2 + 4096)
    assert footprint.peaks[8] == pytest.approx(11.5 * MIB, abs=MIB / 2 + 4096)
    assert footprint.held_bytes == pytest.approx(footprint.peaks[8], abs=MIB)


def test_who_shares_a_loaded_model_takes_nothing(tmp_path: Path) -> None:
    """The second actor's loading does not count."""
    footprint = Footprint()
    with footprint.weigh_load():
        first = np.ones(4 * MIB, "u1")
    held = footprint.held_bytes
    with footprint.weigh_load():
        EchoBackend().open(tmp_path)
    assert footprint.held_bytes == held >= first.nbytes


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

"""Whatever is done to a log, the verifier names the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutations.kinds import KINDS
from tests.mutations.running import run

COUNT = 2000


@pytest.mark.timeout(120)
def test_every_mutation_is_caught_where_it_is(tmp_path: Path) -> None:
    """Thousands of mutations of all kinds, over several logs: none passes, and each is named by its position."""
    caught, wrong = run(tmp_path, COUNT, seed=1)
    assert wrong == []
    assert sum(caught.values()) == COUNT
    assert set(caught) == {kind.__name__ for kind in KINDS}

"""A bounded run of the fuzzers on every test run: `make fuzz` goes on for longer."""

from __future__ import annotations

from itertools import islice

import pytest

from tests.fuzz.mutation import files
from tests.fuzz.target import TARGETS

SEEDS = range(4)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("seed", SEEDS)
def test_no_mutant_raises(name: str, seed: int) -> None:
    """Of model files and of requests: each is taken, within bounds, or refused as it should be."""
    target = TARGETS[name]
    for index, content in enumerate(islice(files(target.corpus, seed), target.count)):
        try:
            target.take(content)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            pytest.fail(f"mutant {index} of seed {seed} raises {error!r}")

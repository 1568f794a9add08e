"""A bounded run of the fuzzer on every test run: `make fuzz` goes on for longer."""

from __future__ import annotations

from itertools import islice

import pytest

from tests.fuzz.mutation import files
from tests.fuzz.target import inspect

SEEDS = range(4)
FILES_A_SEED = 400


@pytest.mark.parametrize("seed", SEEDS)
def test_no_mutant_of_a_model_file_raises(seed: int) -> None:
    """Each gives a passport of bounded size that survives its message."""
    for index, content in enumerate(islice(files(seed), FILES_A_SEED)):
        try:
            inspect(content)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            pytest.fail(f"mutant {index} of seed {seed} raises {error!r}")

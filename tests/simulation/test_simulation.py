"""The fleet in simulation. Runs in processes of its own: hash seed, clocks and logging belong to the run."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.simulation.bugs import BUGS
from tests.tidy.source import ROOT

SEEDS_TO_FIND = 20
"""Each planted bug is found within so many seeds; most within one (docs/simulation.md)."""


def simulation(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    unseeded = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, cwd=ROOT, env=unseeded)


def test_every_promise_holds_on_the_first_seeds() -> None:
    """Whatever the faults: nothing acknowledged is lost, no task counts twice, replay is live, the fleet converges."""
    run = simulation("--seeds", "20")

    assert run.returncode == 0, run.stdout + run.stderr


def test_the_same_seed_gives_the_same_trace() -> None:
    """A failure can be repeated: in another process, and after other seeds, the trace is the same byte for byte."""
    alone = simulation("--seed", "9", "--trace").stdout.split("seeds 1,")[0]
    again = simulation("--seed", "9", "--trace").stdout.split("seeds 1,")[0]
    after_others = simulation("--seeds", "2", "--first", "8", "--trace").stdout.split("seeds 2,")[0]

    assert "TermStarted" in alone
    assert again == alone
    assert after_others.endswith(alone)


@pytest.mark.parametrize("bug", sorted(BUGS))
def test_a_planted_bug_is_found(bug: str) -> None:
    """The simulation can fail, and says how to see that failure again."""
    run = simulation("--seeds", str(SEEDS_TO_FIND), "--bug", bug)

    assert run.returncode == 1, run.stdout + run.stderr
    assert re.search(rf"make sim SEED=\d+ BUG={bug}\n", run.stdout)


@pytest.mark.parametrize("call", ["time.time()", "time.monotonic()", "os.urandom(1)", "time.sleep(0)"])
def test_real_time_and_real_chance_are_out_of_reach(call: str) -> None:
    """Whoever takes the machine's clock or entropy inside a run fails at once, and is named."""
    module, _, rest = call.partition(".")
    program = f"import {module}\nfrom tests.simulation.loop import sealed\nwith sealed():\n    {call}\n"
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)

    assert f"RealWorldError: {module}.{rest.partition('(')[0]} was called" in run.stderr

"""The fleet in simulation. Runs in processes of its own: hash seed, clocks and logging belong to the run."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.simulation.bugs import BUGS
from tests.simulation.scenario import drawn
from tests.simulation.shrink import numbers, promise, ranges
from tests.tidy.source import ROOT

SEEDS = 2000 if os.environ.get("CI") else 60
SEEDS_TO_FIND = 800
"""Each planted bug is found within so many seeds; most within a few (docs/simulation.md)."""


def simulation(*arguments: str, hash_seed: str = "random", within_s: int = 600) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=within_s, check=False, cwd=ROOT, env=environment
    )


@pytest.mark.timeout(1600)
def test_every_promise_holds_on_the_first_seeds() -> None:
    """Whatever the faults: nothing acknowledged is lost, no task counts twice, replay is live, the fleet converges."""
    run = simulation("--seeds", str(SEEDS), within_s=1550)

    assert run.returncode == 0, run.stdout + run.stderr


def test_the_same_seed_gives_the_same_trace() -> None:
    """A failure can be repeated: in any process, whatever order its sets and maps have, byte for byte."""
    once = simulation("--seed", "9", hash_seed="1").stdout
    again = simulation("--seed", "9", hash_seed="2").stdout

    assert "TermStarted" in once
    assert again == once


@pytest.mark.timeout(640)
@pytest.mark.parametrize("bug", sorted(BUGS))
def test_a_planted_bug_is_found(bug: str) -> None:
    """The simulation can fail, and says how to see that failure again, shrunk to few acts and few lines."""
    run = simulation("--seeds", str(SEEDS_TO_FIND), "--bug", bug, "--shrink", "25")

    assert run.returncode == 1, run.stdout + run.stderr
    assert re.search(rf"make sim SEED=\d+ BUG={bug}\n", run.stdout)
    again = re.search(rf"make sim SEED=(\d+) KEEP=(\S+)(?: PLAIN=(\S+))? BUG={bug}\n", run.stdout)
    assert again is not None
    seed, keep, plain = again.groups()
    shrunk = simulation("--seed", seed, "--keep", keep, "--plain", plain or "", "--bug", bug)
    broken = re.search(r"^shrunk from \d+ acts to \d+: (.*)$", run.stdout, re.MULTILINE)
    assert broken is not None
    assert f"seed {seed}: {broken[1]}\n" in shrunk.stdout


def test_a_run_without_some_acts_leaves_the_others_as_they_were() -> None:
    """Shrinking keeps the numbers of acts, and with them what they do."""
    scenario = drawn(3)
    some = scenario.keeping(numbers("2-4,7"))

    assert [act.number for act in some.acts] == [2, 3, 4, 7]
    assert set(some.acts) < set(scenario.acts)
    assert ranges([act.number for act in some.acts]) == "2-4,7"


def test_a_promise_is_known_again_by_other_names() -> None:
    """A shrunk run breaks the same promise, of another job at another position."""
    assert promise("job j-r2-1 ended twice") == promise("job j-r17-3 ended twice")
    assert promise("job j-r2-1 ended twice") != promise("job j-r2-1 is lost")


@pytest.mark.parametrize("call", ["time.time()", "time.monotonic()", "os.urandom(1)", "time.sleep(0)", "uuid.uuid4()"])
def test_real_time_and_real_chance_are_out_of_reach(call: str) -> None:
    """Whoever takes the machine's clock or entropy inside a run fails at once, and is named."""
    module, _, rest = call.partition(".")
    run = in_a_seal(f"import {module}", call)

    assert f"RealWorldError: {module}.{rest.partition('(')[0]} was called" in run.stderr


@pytest.mark.parametrize("call", ["socket.socket().bind(('127.0.0.1', 0))", "threading.Thread(target=print).start()"])
def test_sockets_and_threads_are_out_of_reach(call: str) -> None:
    """Nor does a run depend on what another thread or process does."""
    run = in_a_seal("import socket, threading", call)

    assert "RealWorldError" in run.stderr


def in_a_seal(before: str, call: str) -> subprocess.CompletedProcess[str]:
    program = f"{before}\nfrom tests.simulation.loop import sealed\nwith sealed():\n    {call}\n"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)

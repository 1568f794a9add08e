"""`python -m tests.simulation`: many seeds, or one again. Started anew under a fixed hash seed: sets must not drift."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from contextlib import nullcontext

from tests.simulation.bugs import BUGS
from tests.simulation.world import Outcome, simulate


def main() -> int:
    """Runs what the arguments say; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="one seed again")
    parser.add_argument("--trace", action="store_true", help="print the whole trace of a run")
    parser.add_argument("--bug", choices=sorted(BUGS), help="plant this bug first")
    parser.add_argument("--at-most", type=float, default=float("inf"), metavar="SECONDS", help="start no seed later")
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.seeds) if given.seed is None else [given.seed]
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    done: list[Outcome] = []
    with BUGS[given.bug]() if given.bug else nullcontext():
        for seed in seeds:
            outcome = simulate(seed)
            done.append(outcome)
            if given.trace:
                print("\n".join(outcome.trace))
            if outcome.broken or time.perf_counter() - began_s > given.at_most:
                break
    _report(done, time.perf_counter() - began_s, time.process_time() - began_cpu_s, given.bug)
    return 1 if done[-1].broken else 0


def _report(done: list[Outcome], real_s: float, cpu_s: float, bug: str | None) -> None:
    simulated_s = sum(outcome.simulated_s for outcome in done)
    records = sum(outcome.records for outcome in done)
    faults = sum((outcome.faults for outcome in done), Counter[str]())
    last = done[-1]
    if last.broken:
        again = f"make sim SEED={last.seed}" + (f" BUG={bug}" if bug else "")
        print("\n".join(last.trace[-30:]))
        print(f"seed {last.seed}: {last.broken}\nrepeat it, with the whole trace: {again}")
    print(f"seeds {len(done)}, records {records}, simulated {simulated_s:.0f} s in {real_s:.1f} s")
    print(f"speed {simulated_s / cpu_s:.0f} x ({cpu_s:.1f} s of one core), last trace {last.digest}")
    print("faults " + ", ".join(f"{name} {count}" for name, count in sorted(faults.items())))


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    sys.exit(main())

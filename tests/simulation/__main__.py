"""`python -m tests.simulation`: many seeds in all cores, or one again with its whole trace."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import nullcontext

from tests.simulation.bugs import BUGS
from tests.simulation.many import Tally, run_many
from tests.simulation.scenario import ASPECTS, Scenario, drawn
from tests.simulation.shrink import command, excerpt, numbers, shrunk
from tests.simulation.world import Outcome, simulate


def main() -> int:
    """Runs what the arguments say; 1 when a promise was broken."""
    given = _arguments()
    if given.seed is not None:
        return _one_again(given)
    tally = Tally.load(given.tally)
    failed = run_many(
        tally,
        last=given.first + given.seeds - 1,
        first=given.first,
        bug=given.bug,
        workers=given.workers,
        at_most_s=given.at_most,
    )
    if given.tally:
        tally.save(given.tally)
    if failed is not None:
        _report(simulate_with(given.bug, drawn(failed)), given.bug, given.shrink)
    print(tally)
    return 0 if failed is None else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes, one core each")
    parser.add_argument("--at-most", type=float, default=float("inf"), metavar="SECONDS", help="begin no seed later")
    parser.add_argument("--tally", help="a file to add the counts to; seeds in it are not run again")
    parser.add_argument("--seed", type=int, help="one seed again, with its trace")
    parser.add_argument("--keep", default="", help="only these of its acts, as 1-3,7")
    parser.add_argument("--plain", default="", help=f"without these of {','.join(ASPECTS)}")
    parser.add_argument("--bug", choices=sorted(BUGS), help="plant this bug first")
    parser.add_argument("--shrink", type=int, default=250, metavar="RUNS", help="how hard to make a failure small")
    return parser.parse_args()


def simulate_with(bug: str | None, scenario: Scenario) -> Outcome:
    """Runs a scenario with a bug planted."""
    with BUGS[bug]() if bug else nullcontext():
        return simulate(scenario)


def _one_again(given: argparse.Namespace) -> int:
    scenario = drawn(given.seed)
    for aspect in filter(None, given.plain.split(",")):
        scenario = scenario.simplified(aspect)
    if given.keep:
        scenario = scenario.keeping(numbers(given.keep))
    outcome = simulate_with(given.bug, scenario)
    print("\n".join(outcome.trace))
    print(f"trace {outcome.digest}, {outcome.simulated_s:.0f} s, {outcome.records} records")
    print(f"seed {given.seed}: {outcome.broken or 'every promise held'}")
    return 1 if outcome.broken else 0


def _report(failed: Outcome, bug: str | None, runs: int) -> None:
    with BUGS[bug]() if bug else nullcontext():
        small = shrunk(failed, runs)
    print(f"seed {failed.scenario.seed}: {failed.broken}")
    print(f"shrunk from {len(failed.scenario.acts)} acts to {len(small.scenario.acts)}: {small.broken}")
    print("\n".join(excerpt(small.trace)))
    print(f"repeat it whole:  make sim SEED={failed.scenario.seed}" + (f" BUG={bug}" if bug else ""))
    print(f"repeat it shrunk: {command(small.scenario, bug)}")


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED", "random") == "random":
        # What is sound is the same under every hash seed; of what is broken, the first sign need not be.
        command_line = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, command_line, {**os.environ, "PYTHONHASHSEED": "0"})
    sys.exit(main())

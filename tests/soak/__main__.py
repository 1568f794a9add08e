"""`python -m tests.soak --kills 1000`: torments a real fleet and says whether every promise held."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.soak.campaign import Outcome, Settings, run


def main() -> int:
    """Runs one campaign; exit code 1 when a promise did not hold."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="stop after this many kills")
    parser.add_argument("--seconds", type=float, default=3600, help="stop after this time, however many there were")
    parser.add_argument("--seed", type=int, default=1, help="of load, kills and pauses (not of the failpoints)")
    parser.add_argument("--coordinators", type=int, default=3)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="a directory to work in and to keep; else a temporary one")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hivefold-soak-") as temporary:
        directory = chosen.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        settings = Settings(directory, chosen.kills, chosen.seconds, chosen.seed, chosen.coordinators, chosen.nodes)
        outcome = asyncio.run(run(settings, lambda line: print(line, file=sys.stderr, flush=True)))
    print(json.dumps(told(outcome), indent=2))
    return 1 if outcome.faults else 0


def told(outcome: Outcome) -> dict[str, object]:
    """The outcome in plain values."""
    tally = outcome.tally
    return {
        "kills": tally.kills,
        "killed": dict(tally.killed),
        "paused": dict(tally.paused),
        "stepped_down": dict(tally.stepped_down),
        "mended": dict(tally.mended),
        "seconds": round(outcome.seconds),
        "jobs": outcome.jobs,
        "tasks": outcome.tasks,
        "records": outcome.records,
        "terms": outcome.terms,
        "comparisons": outcome.comparisons,
        "faults": outcome.faults,
    }


if __name__ == "__main__":
    sys.exit(main())

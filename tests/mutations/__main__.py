"""`make mutations COUNT=100000`: mutates logs on all processors and says what was caught."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.mutations.running import run


def _share(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    with tempfile.TemporaryDirectory() as directory:
        return run(Path(directory), count, seed)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began, workers = time.monotonic(), os.cpu_count() or 1
    shares = [given.count // workers + (n < given.count % workers) for n in range(workers)]
    seeds = [given.seed + n * 1_000_000 for n in range(workers)]
    caught: Counter[str] = Counter()
    wrong: list[str] = []
    with ProcessPoolExecutor(workers) as pool:
        for found, missed in pool.map(_share, shares, seeds):
            caught += found
            wrong += missed
    for kind, number in sorted(caught.items()):
        print(f"{kind:<14} {number:>7}")
    print(f"{sum(caught.values())} of {given.count} caught where they are, in {time.monotonic() - began:.0f} s")
    for why in wrong[:20]:
        print(why)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

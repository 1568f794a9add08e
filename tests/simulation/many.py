"""Many seeds, in as many processes as there are cores; what was run is counted, and can be added to later."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from tests.simulation.bugs import BUGS
from tests.simulation.scenario import drawn
from tests.simulation.world import simulate

_SLICE: Final = 10
"""Seeds that a process is given at once."""
_TELL_S: Final = 10.0


class _Part(NamedTuple):
    """What came of a slice of seeds."""

    last: int
    seeds: int
    records: int
    simulated_s: float
    cpu_s: float
    faults: Counter[str]
    failed: int | None


@dataclass(slots=True)
class Tally:
    """What all runs together came to; `next` is the first seed that was not run."""

    next: int = 0
    seeds: int = 0
    records: int = 0
    simulated_s: float = 0.0
    cpu_s: float = 0.0
    real_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)

    @classmethod
    def load(cls, path: str | None) -> Tally:
        """What a file says, or nothing yet."""
        if path is None or not Path(path).exists():
            return cls()
        plain = json.loads(Path(path).read_text())
        return cls(**{**plain, "faults": Counter(plain["faults"])})

    def save(self, path: str) -> None:
        """Writes it down."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        Path(path).write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n")

    def add(self, part: _Part) -> None:
        """One more slice."""
        self.next = max(self.next, part.last + 1)
        self.seeds += part.seeds
        self.records += part.records
        self.simulated_s += part.simulated_s
        self.cpu_s += part.cpu_s
        self.faults.update(part.faults)

    def __str__(self) -> str:
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        return (
            f"seeds {self.seeds}, records {self.records}, simulated {self.simulated_s:.0f} s in {self.real_s:.1f} s, "
            f"{self.seeds / max(self.real_s, 0.001):.1f} seeds/s\n"
            f"speed {self.simulated_s / max(self.cpu_s, 0.001):.0f} x on one core ({self.cpu_s:.1f} s of cores)\n"
            f"faults {faults}"
        )


def run_many(
    tally: Tally, *, first: int, last: int, bug: str | None, workers: int, at_most_s: float = float("inf")
) -> int | None:
    """Runs the seeds that the tally does not have; the first that broke a promise, if one did."""
    began_s = told_s = time.perf_counter()
    begun = max(first, tally.next)
    slices: Iterator[range] = (range(at, min(at + _SLICE, last + 1)) for at in range(begun, last + 1, _SLICE))
    failed: int | None = None
    with ProcessPoolExecutor(workers, initializer=gc.freeze) as pool:  # what is there now is never garbage
        under_way: set[Future[_Part]] = set()
        while True:
            now_s = time.perf_counter()
            if failed is None and now_s - began_s < at_most_s:
                under_way |= {pool.submit(_run, part, bug) for part in islice(slices, workers + 1 - len(under_way))}
            if not under_way:
                break
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for part in (future.result() for future in done):
                tally.add(part)
                failed = min(filter(None, (failed, part.failed)), default=None)
            if now_s - told_s > _TELL_S:
                told_s = now_s
                _tell(tally, last, began_s, begun)
    tally.real_s += time.perf_counter() - began_s
    return failed


def _tell(tally: Tally, last: int, began_s: float, begun: int) -> None:
    rate = (tally.next - begun) / (time.perf_counter() - began_s)
    speed = tally.simulated_s / max(tally.cpu_s, 0.001)
    print(f"seed {tally.next - 1} of {last}, {rate:.1f} seeds/s, {speed:.0f} x", file=sys.stderr, flush=True)


def _run(seeds: range, bug: str | None) -> _Part:
    """Runs a slice, up to the first seed that breaks a promise."""
    began_s = time.process_time()
    records, simulated_s, faults = 0, 0.0, Counter[str]()
    failed = None
    count = 0
    with BUGS[bug]() if bug else nullcontext():
        for seed in seeds:
            outcome = simulate(drawn(seed))
            count += 1
            records += outcome.records
            simulated_s += outcome.simulated_s
            faults += outcome.faults
            if outcome.broken:
                failed = seed
                break
    return _Part(seeds[-1], count, records, simulated_s, time.process_time() - began_s, faults, failed)

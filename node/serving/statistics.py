"""What was inferred on this node: counts and times by model version and by batch size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from actors.together import Batched
from hivefold.oip.limits import STATISTICS_MODELS, STATISTICS_SIZES


@dataclass(slots=True)
class Span:
    """How often something was done, and how long it took in all, in nanoseconds."""

    count: int = 0
    ns: int = 0

    def add(self, count: int, ns: int) -> None:
        """It was done so many times more, and took so long."""
        self.count += count
        self.ns += ns


@dataclass(slots=True)
class Compute:
    """Where the time of batches went."""

    input: Span = field(default_factory=Span)
    infer: Span = field(default_factory=Span)
    output: Span = field(default_factory=Span)

    def add(self, count: int, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """Adds what took so long."""
        # Each small request comes by here: a call for each sum would cost more than they do.
        one, two, three = self.input, self.infer, self.output
        one.count += count
        one.ns += input_ns
        two.count += count
        two.ns += infer_ns
        three.count += count
        three.ns += output_ns


@dataclass(slots=True)
class Tally:
    """The figures of one model version."""

    success: Span = field(default_factory=Span)
    fail: Span = field(default_factory=Span)
    queue: Span = field(default_factory=Span)
    compute: Compute = field(default_factory=Compute)
    by_rows: dict[int, Compute] = field(default_factory=dict)
    last_ms: int = 0
    rows: int = 0
    runs: int = 0

    def add_batch(self, rows: int, requests: int, took: Batched) -> None:
        """A batch was run."""
        self.runs += took.runs
        self.compute.add(requests, took.input_ns, took.infer_ns, took.output_ns)
        by_rows = self.by_rows.get(rows)
        if by_rows is None:
            if len(self.by_rows) >= STATISTICS_SIZES:
                del self.by_rows[next(iter(self.by_rows))]
            by_rows = self.by_rows[rows] = Compute()
        by_rows.add(took.runs, took.input_ns, took.infer_ns, took.output_ns)


class Statistics:
    """The tallies of the model versions that were asked last."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, int], Tally] = {}

    def of(self, name: str, version: int) -> Tally:
        """The tally of a version, new where there is none."""
        tally = self._tallies.get((name, version))
        if tally is None:
            if len(self._tallies) >= STATISTICS_MODELS:
                del self._tallies[next(iter(self._tallies))]
            tally = self._tallies[name, version] = Tally()
        return tally

    def all(self) -> Iterator[tuple[str, int, Tally]]:
        """Name, version and tally of each, sorted."""
        for (name, version), tally in sorted(self._tallies.items(), key=lambda item: item[0]):
            yield name, version, tally

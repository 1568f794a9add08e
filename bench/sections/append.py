"""Appending to the log: one record, a hundred, a thousand at once, against the disk's own fsync."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from bench.broker import embedded_log
from bench.context import Context
from bench.floors import fsyncs
from bench.results import Better, Measure, Section
from bench.statistics import percentile, ratios

KEY: Final = "append"
TITLE: Final = "Appending to the log"
_BATCHES: Final = {1: 1000, 100: 100, 1000: 20}
_HOW: Final = """\
Records of 200 bytes, one append outstanding, fsync before each answer: what the coordinator's writer does with
what waits. Beside it eventsourcing on SQLite (write-ahead log, commit on disk), one event a save and many a save. The
floor is a bare append of 200 bytes with fsync on the same disk."""


def run(context: Context) -> Section:
    """Appends in batches of each size, round by round."""
    ours: dict[int, list[float]] = defaultdict(list)
    waits: dict[int, list[float]] = defaultdict(list)
    theirs: dict[int, list[float]] = defaultdict(list)
    floor: list[float] = []
    with embedded_log(context.workplace / "append") as log:
        for at in range(context.rounds):
            with context.ours("hivefold_log") as contender:
                for size, batches in _BATCHES.items():
                    contender.ask("append", batches=max(1, batches // 10), size=size, **log)
                    answer = contender.ask("append", batches=batches, size=size, **log)
                    ours[size].append(size * batches / answer["seconds"])
                    waits[size].append(percentile(answer["ms"], 50))
            with context.theirs("eventsourcing_log", context.workplace) as contender:
                for size, batches in _BATCHES.items():
                    contender.ask("append", batches=max(1, batches // 10), size=size)
                    theirs[size].append(size * batches / contender.ask("append", batches=batches, size=size)["seconds"])
            milliseconds = fsyncs(context.workplace, _BATCHES[1])
            floor.append(1000 * len(milliseconds) / sum(milliseconds))
            context.say(f"round {at + 1}: " + ", ".join(f"{size} at once {ours[size][-1]:,.0f}/s" for size in ours))
    return Section(KEY, TITLE, _HOW, (), _measures(ours, waits, theirs, floor))


def _measures(
    ours: dict[int, list[float]], waits: dict[int, list[float]], theirs: dict[int, list[float]], floor: list[float]
) -> tuple[Measure, ...]:
    found = [Measure("single appends over bare fsyncs", "ratio", "x", ratios(ours[1], floor), Better.MORE)]
    for size, rates in ours.items():
        found.append(Measure(f"records a second, {size} at once", "hivefold", "/s", tuple(rates), Better.MORE))
        found.append(Measure(f"one append of {size}, p50", "hivefold", "ms", tuple(waits[size]), Better.LESS))
    for size, rates in theirs.items():
        found.append(Measure(f"events a second, {size} at once", "eventsourcing", "/s", tuple(rates), Better.MORE))
    found.append(Measure("bare fsyncs a second", "floor", "/s", tuple(floor), Better.MORE))
    return tuple(found)

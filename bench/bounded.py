"""python -m bench.bounded: starts over logs of up to ten million events. Writes bench/RESTART.md.

The logs are made by the coordinator's own core and stored by hivefold's own log on a nats-server with fsync
always, in a folder that is gone afterwards (about 5 GB for the longest).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

from bench.contender import ROOT
from bench.context import Context
from bench.environment import machine
from bench.restarting import MILLION, MILLION_SINGLE, NOTHING, TEN_MILLION, TEN_MILLION_SINGLE, Found, Start, measure
from bench.sections.restart import told

_PAGE: Final = ROOT / "bench" / "RESTART.md"
_LEADS_S: Final = 3.0
_MORE_MB: Final = 200.0
_SHAPES: Final = (NOTHING, MILLION, MILLION_SINGLE, TEN_MILLION, TEN_MILLION_SINGLE)


def page(found: Mapping[str, Found], rounds: int) -> str:
    """The result for people."""
    none = max(found[NOTHING.name].megabytes)
    lines = [
        "# Starting over a long log",
        "",
        f"One coordinator, {rounds} starts of each kind, written by `make bench-bounded`. Seconds from the start of",
        "the process until it leads, a term of its own recorded: the median and, in brackets, the most. Events are",
        "task transitions (placed, succeeded) that the coordinator's own core decided: many to a record, as a busy",
        "fleet writes them, and one to a record, the worst that can be.",
        "",
        *_table(
            ("the log", "records", "size", "after a stop", "after kill -9, oldest snapshot", "without a snapshot"),
            [_times(name, its) for name, its in found.items()],
        ),
        "",
        f"Promised: at most {_LEADS_S:g} s from a snapshot, however long the log: {_verdict(found)}.",
        "",
        "- *after a stop*: SIGTERM, then a start from the last snapshot; the lease is free.",
        "- *after kill -9, oldest snapshot*: the process that died holds the lease, and so many records came after",
        "  the snapshot that a little later the leader would have written the next. *State* is when reads are served;",
        "  what is left until it leads is the lease and the new term.",
        "- *without a snapshot*: all is replayed from record 1, as after an upgrade that changes the fold. Until the",
        "  state is there; these logs are not signed yet, and who leads first reads one again to sign it.",
        "",
        "| the log | resident, from record 1 | resident, from a snapshot | more than over nothing |",
        "|---|---|---|---|",
        *(_memory(name, its, none) for name, its in found.items()),
        "",
        f"Promised: at most {_MORE_MB:g} MB more: {_memory_verdict(found, none)}. Of the whole process, three seconds",
        "after it leads.",
        "",
        *(f"- {name}: {value}" for name, value in machine().items()),
        f"- measured: {datetime.now(UTC):%Y-%m-%d}",
    ]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _times(name: str, its: Found) -> list[str]:
    serving = median(start.serving_s for start in its.killed)
    since = f", {its.suffix:,} records since" if its.records else ""
    return [
        name,
        f"{its.records:,}",
        f"{its.log_bytes / 1e6:,.0f} MB",
        _seconds(its.stopped),
        f"{_seconds(its.killed)}; state after {serving:.2f}{since}",
        f"{its.first.serving_s:.1f}",
    ]


def _seconds(starts: Sequence[Start]) -> str:
    seconds = [start.leading_s for start in starts]
    return f"{median(seconds):.2f} ({max(seconds):.2f})"


def _verdict(found: Mapping[str, Found]) -> str:
    worst = max(start.leading_s for its in found.values() for start in (*its.stopped, *its.killed))
    return f"{'met' if worst <= _LEADS_S else 'MISSED'}, at worst {worst:.2f} s"


def _memory(name: str, its: Found, none: float) -> str:
    most = max(its.megabytes)
    return f"| {name} | {its.first.megabytes:.0f} MB | {most:.0f} MB | {_more(its, none):+.0f} MB |"


def _more(its: Found, none: float) -> float:
    return max(its.first.megabytes, *its.megabytes) - none


def _memory_verdict(found: Mapping[str, Found], none: float) -> str:
    worst = max(_more(its, none) for its in found.values())
    return f"{'met' if worst <= _MORE_MB else 'MISSED'}, at worst {worst:.0f} MB"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.bounded", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="starts of each kind (default %(default)s)")
    parser.add_argument("--most", type=int, default=10_000_000, help="events of the longest log (default %(default)s)")
    arguments = parser.parse_args()
    parent = ROOT / ".hivefold"
    parent.mkdir(exist_ok=True)
    found: dict[str, Found] = {}
    for shape in (shape for shape in _SHAPES if shape.transitions <= arguments.most):
        workplace = Path(tempfile.mkdtemp(prefix="bounded-", dir=parent))
        try:
            context = Context.of(workplace, arguments.rounds)
            found[shape.name] = measure(context, workplace, shape)
            context.say(told(shape.name, found[shape.name]))
        finally:
            shutil.rmtree(workplace, ignore_errors=True)
    if arguments.most < TEN_MILLION.transitions:
        print(page(found, arguments.rounds))
        return
    _PAGE.write_text(page(found, arguments.rounds), encoding="utf-8")
    print(_PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

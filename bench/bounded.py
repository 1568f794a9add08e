"""python -m bench.bounded: starts over logs of up to ten million events. Writes bench/RESTART.md.

The logs are made by the coordinator's own core and stored by hivefold's own log on a nats-server with fsync
always, in a folder that is gone afterwards (3 GB for the longest), or with --logs in one that stays: then logs
that are there are not made again, and what is found is gathered, so that each may be measured on its own.
"""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

from bench.contender import ROOT
from bench.context import Context
from bench.environment import machine
from bench.restarting import (
    MILLION,
    MILLION_SINGLE,
    NOTHING,
    TEN_MILLION,
    TEN_MILLION_SINGLE,
    Found,
    Shape,
    Start,
    prepare,
    restart,
)
from bench.sections.restart import told

_PAGE: Final = ROOT / "bench" / "RESTART.md"
_LEADS_S: Final = 3.0
_MORE_MB: Final = 200.0
_SHAPES: Final = {
    "nothing": NOTHING,
    "million": MILLION,
    "million-single": MILLION_SINGLE,
    "ten-million": TEN_MILLION,
    "ten-million-single": TEN_MILLION_SINGLE,
}


def page(found: Mapping[str, Found], rounds: int, note: str = "") -> str:
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
            (
                "the log",
                "records",
                "size",
                "nats-server",
                "since the snapshot",
                "after a stop",
                "after kill -9",
                "without a snapshot",
            ),
            [_times(name, its) for name, its in found.items()],
        ),
        "",
        f"Promised: at most {_LEADS_S:g} s from a snapshot, however long the log: {_verdict(found)}.",
        "",
        "- *nats-server*: how long it takes itself to start over the log, before the coordinator.",
        "- *since the snapshot*: so many records that a little later a leader would write the next: no start has more.",
        "- *after a stop*: SIGTERM, then a start; the lease is free.",
        "- *after kill -9*: the lease is still in the name of the process that died.",
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
        *([f"- {note}"] if note else []),
    ]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _times(name: str, its: Found) -> list[str]:
    return [
        name,
        f"{its.records:,}",
        f"{its.log_bytes / 1e6:,.0f} MB",
        f"{its.server_s:.1f}",
        f"{its.suffix:,}",
        _seconds(its.stopped),
        _seconds(its.killed),
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


def _measured(shape: Shape, key: str, logs: Path, rounds: int) -> Found:
    """Starts over a log, which is made first where it is not there yet."""
    workplace, prepared = logs / key, logs / f"{key}.json"
    workplace.mkdir(exist_ok=True)
    context = Context.of(workplace, rounds)
    if not prepared.exists():
        _keep(prepared, prepare(context, workplace, shape))
        context.say(f"{shape.name}: made, and folded once")
    found = kept(prepared)
    if rounds:
        found.stopped, found.killed = [], []
        restart(context, workplace, found)
        _keep(prepared, found)
        context.say(told(shape.name, found))
    return found


def _keep(path: Path, found: Found) -> None:
    path.write_text(json.dumps(asdict(found)), encoding="utf-8")


def kept(path: Path) -> Found:
    """What was found before."""
    plain = json.loads(path.read_text(encoding="utf-8"))
    first, *_ = _starts([plain.pop("first")])
    return Found(first=first, stopped=_starts(plain.pop("stopped")), killed=_starts(plain.pop("killed")), **plain)


def _starts(plain: Sequence[Mapping[str, float]]) -> list[Start]:
    return [Start(**each) for each in plain]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.bounded", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="starts of each kind; 0 makes the logs and no more")
    parser.add_argument("--only", choices=_SHAPES, help="one of the logs")
    parser.add_argument("--logs", type=Path, help="a folder in which the logs stay")
    parser.add_argument("--note", default="", help="what a reader of the page has to know of this run")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what was started, as Ctrl-C does
    with _folder(arguments.logs) as logs:
        for key in [arguments.only] if arguments.only else _SHAPES:
            _measured(_SHAPES[key], key, logs, arguments.rounds)
        found = {
            shape.name: kept(logs / f"{key}.json") for key, shape in _SHAPES.items() if (logs / f"{key}.json").exists()
        }
    if any(not its.stopped for its in found.values()) or NOTHING.name not in found:
        return
    if len(found) == len(_SHAPES):
        _PAGE.write_text(page(found, arguments.rounds, arguments.note), encoding="utf-8")
    print(page(found, arguments.rounds, arguments.note))


@contextmanager
def _folder(wanted: Path | None) -> Iterator[Path]:
    """Where the logs are: a folder that stays, or one on the disk of the checkout that is gone afterwards."""
    if wanted is not None:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted
        return
    parent = ROOT / ".hivefold"
    parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bounded-", dir=parent) as folder:
        yield Path(folder)


if __name__ == "__main__":
    main()

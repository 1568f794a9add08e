"""What an exported log costs: to write, to read, to replay, to explain and to recheck; and how much memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from bench.broker import embedded_log
from bench.context import Context
from bench.results import Better, Measure, Section, Target

KEY: Final = "audit"
TITLE: Final = "A log in a file"
_SHAPE: Final = {"transitions": 100_000, "job_tasks": 3000, "at_once": 1}
_LONGER: Final = 4
_MEMORY_GROWTH_BYTES: Final = 10_000_000
_HOW: Final = f"""\
The worst log for readers, each outcome in a record of its own ({_SHAPE["transitions"]:,} task transitions in jobs
of {_SHAPE["job_tasks"]:,} tasks), on a nats-server with fsync always. A fresh process exports it into a file; fresh
processes read every entry of the file with its digests, replay it to the digest of the state, tell the story of one
job, and decide every record again. The peak memory of export and reading is compared with that on a log
{_LONGER} times as long."""

_VERBS: Final = ("export", "read", "replay", "explain", "recheck")


@dataclass(slots=True)
class _Found:
    seconds: dict[str, list[float]] = field(default_factory=lambda: {verb: [] for verb in _VERBS})
    peaks: dict[str, list[float]] = field(default_factory=lambda: {verb: [] for verb in _VERBS})
    records: int = 0

    def take(self, verb: str, answer: dict[str, Any]) -> None:
        self.records = answer["records"]
        self.seconds[verb].append(answer["seconds"])
        self.peaks[verb].append(answer["peak_bytes"])

    def rates(self, verb: str) -> tuple[float, ...]:
        return tuple(self.records / seconds for seconds in self.seconds[verb])

    def peaks_mb(self, verb: str) -> tuple[float, ...]:
        return tuple(each / 1e6 for each in self.peaks[verb])

    def size(self) -> str:
        return f"{self.records:,} records"


def run(context: Context) -> Section:
    """Exports and reads, round by round; then once more with a longer log."""
    short, long = _Found(), _Found()
    for found, factor, rounds in ((short, 1, context.rounds), (long, _LONGER, 1)):
        path = str(context.workplace / f"log-{factor}.hflog")
        with embedded_log(context.workplace / f"log-{factor}") as log:
            with context.ours("hivefold_log") as contender:
                contender.ask("fill", **{**_SHAPE, "transitions": factor * _SHAPE["transitions"]}, **log)
            for _ in range(rounds):
                _ask(context, found, "export", path=path, **log)
        for at in range(rounds):
            for verb in ("read", "replay", "recheck"):
                _ask(context, found, verb, path=path)
            _ask(context, found, "explain", path=path, subject="job-000002")
            context.say(f"round {at + 1}: " + ", ".join(f"{v} {found.rates(v)[-1]:,.0f}/s" for v in _VERBS))
    return Section(KEY, TITLE, _HOW, _targets(short, long), _measures(short, long))


def _ask(context: Context, found: _Found, verb: str, **arguments: object) -> None:
    with context.ours("hivefold_audit") as contender:
        found.take(verb, contender.ask(verb, **arguments))


def _targets(short: _Found, long: _Found) -> tuple[Target, ...]:
    growth = tuple(max(long.peaks[verb]) - max(short.peaks[verb]) for verb in ("export", "read"))
    return (
        Target("entries read a second", "/s", short.rates("read"), 60_000, Better.MORE),
        Target(
            f"memory that a log {_LONGER} times as long adds (export, read)",
            "MB",
            tuple(each / 1e6 for each in growth),
            _MEMORY_GROWTH_BYTES / 1e6,
            Better.LESS,
        ),
    )


def _measures(short: _Found, long: _Found) -> tuple[Measure, ...]:
    ours, most, less = "hivefold", Better.MORE, Better.LESS
    rates = [Measure(f"records a second, {verb}", ours, "/s", short.rates(verb), most, short.size()) for verb in _VERBS]
    peaks = [
        Measure(f"peak memory, {verb}", ours, "MB", found.peaks_mb(verb), less, found.size())
        for verb in _VERBS
        for found in (short, long)
    ]
    return (*rates, *peaks)

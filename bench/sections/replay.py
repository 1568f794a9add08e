"""Cold replay: from opening the connection to the digest of the state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from bench.broker import embedded_log
from bench.context import Context
from bench.results import Better, Measure, Section, Target
from bench.statistics import ratios

KEY: Final = "replay"
TITLE: Final = "Cold replay of the log"
_DENSE: Final = {"transitions": 1_000_000, "job_tasks": 10_000, "at_once": 200}
_SINGLE: Final = {"transitions": 400_000, "job_tasks": 3000, "at_once": 1}
_EVENTS: Final = 50_000
_HOW: Final = f"""\
Two logs that the coordinator's own core decided, on a nats-server with fsync always. The dense one holds
{_DENSE["transitions"]:,} task transitions (placed, succeeded) with {_DENSE["at_once"]} outcomes a record,
as a busy fleet writes them; in the other each outcome has a record of its own, the worst that can be
(jobs of {_SINGLE["job_tasks"]:,} tasks, placed at once). A fresh process opens its connection, reads from
record 1, checks each record against the hash of the one before, folds it, checks the invariants and takes
the digest of the whole state. Beside it eventsourcing on SQLite rebuilds one aggregate from {_EVENTS:,}
events, unverified."""


@dataclass(slots=True)
class _Found:
    transitions: int
    records: int
    seconds: list[float] = field(default_factory=list)
    peak_bytes: list[float] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)

    def take(self, answer: dict[str, Any]) -> None:
        self.seconds.append(answer["seconds"])
        self.peak_bytes.append(answer["peak_bytes"])
        self.digests.add(answer["digest"])
        assert len(self.digests) == 1, "every replay gives the same state"

    def rates(self, count: int) -> tuple[float, ...]:
        return tuple(count / seconds for seconds in self.seconds)


def run(context: Context) -> Section:
    """Fills the logs, then replays each in fresh processes, round by round."""
    peer: list[float] = []
    with (
        embedded_log(context.workplace / "dense") as dense_log,
        embedded_log(context.workplace / "single") as single_log,
    ):
        dense = _fill(context, dense_log, _DENSE)
        single = _fill(context, single_log, _SINGLE)
        for at in range(context.rounds):
            for found, log in ((dense, dense_log), (single, single_log)):
                with context.ours("hivefold_log") as contender:
                    found.take(contender.ask("replay", **log))
            context.say(
                f"round {at + 1}: {dense.rates(dense.transitions)[-1]:,.0f} transitions/s, "
                f"{single.rates(single.records)[-1]:,.0f} records/s"
            )
            with context.theirs("eventsourcing_log", context.workplace) as contender:
                peer.append(_EVENTS / contender.ask("replay", events=_EVENTS)["seconds"])
    return Section(KEY, TITLE, _HOW, _targets(dense, single), _measures(dense, single, peer))


def _fill(context: Context, log: dict[str, str], shape: dict[str, int]) -> _Found:
    with context.ours("hivefold_log") as contender:
        made = contender.ask("fill", **shape, **log)
    context.say(f"wrote a log of {made['transitions']:,} transitions in {made['records']:,} records")
    return _Found(made["transitions"], made["records"])


def _targets(dense: _Found, single: _Found) -> tuple[Target, ...]:
    return (
        Target("replayed transitions a second", "/s", dense.rates(dense.transitions), 200_000, Better.MORE),
        Target("replayed records a second", "/s", single.rates(single.records), 30_000, Better.MORE),
    )


def _measures(dense: _Found, single: _Found, peer: list[float]) -> tuple[Measure, ...]:
    several = f"{dense.transitions:,} transitions in {dense.records:,} records"
    alone = f"{single.transitions:,} transitions in {single.records:,} records"
    ours, most, less = "hivefold", Better.MORE, Better.LESS
    return (
        Measure("transitions a second, dense records", ours, "/s", dense.rates(dense.transitions), most, several),
        Measure("start to state", ours, "s", tuple(dense.seconds), less, several),
        Measure("peak memory of the process", ours, "MB", _megabytes(dense), less, several),
        Measure("records a second, one outcome each", ours, "/s", single.rates(single.records), most, alone),
        Measure("start to state", ours, "s", tuple(single.seconds), less, alone),
        Measure("peak memory of the process", ours, "MB", _megabytes(single), less, alone),
        Measure("events a second, one aggregate", "eventsourcing", "/s", tuple(peer), most),
        Measure(
            "records of hivefold over events of eventsourcing",
            "ratio",
            "x",
            ratios(single.rates(single.records), peer),
            most,
        ),
    )


def _megabytes(found: _Found) -> tuple[float, ...]:
    return tuple(each / 1e6 for each in found.peak_bytes)

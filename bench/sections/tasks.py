"""Tasks that do nothing: how many a second, and how long one takes there and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from bench.contender import Contender
from bench.context import Context
from bench.floors import fsyncs
from bench.results import Better, Measure, Section, Target
from bench.statistics import percentile, ratios

KEY: Final = "tasks"
TITLE: Final = "Tasks that do nothing"
_TASKS: Final = 10_000
_WARM_TASKS: Final = 1000
_TURNS: Final = 2
_ROUND_TRIPS: Final = 300
_WARM_ROUND_TRIPS: Final = 50
_HOW: Final = f"""\
{_TASKS:,} tasks on three workers: hivefold gets one probe job of that many tasks and its client waits for
the job's end, with three node processes, a coordinator and a broker; Ray gets that many remote calls on a local
cluster of three workers; Dask distributed one `map` over three worker processes. Then single tasks one after
another, {_ROUND_TRIPS} in a round: a job of one task until the client sees its end; submit and get. Each contender is
started anew in each round, warmed up, and alone on the machine. Floors: appending 200 bytes with fsync on the
same disk, a bare gRPC echo between two processes, and the hops of a durable round trip with nothing in between
(gRPC, an append with fsync, the work stream, a second process, the results stream with fsync, one more append)."""


class _Times:
    """What was measured of each contender, round by round."""

    def __init__(self) -> None:
        self.rates: dict[str, list[float]] = defaultdict(list)
        self.p50: dict[str, list[float]] = defaultdict(list)
        self.p99: dict[str, list[float]] = defaultdict(list)

    def trips(self, who: str, milliseconds: list[float]) -> None:
        self.p50[who].append(percentile(milliseconds, 50))
        self.p99[who].append(percentile(milliseconds, 99))


def run(context: Context) -> Section:
    """Measures hivefold, Ray and Dask in turn, round by round."""
    times = _Times()
    turns: dict[str, Callable[[], AbstractContextManager[Contender]]] = {
        "hivefold": lambda: context.ours("hivefold_tasks", context.workplace),
        "Ray": lambda: context.theirs("ray_tasks"),
        "Dask": lambda: context.theirs("dask_tasks"),
    }
    for at in range(context.rounds):
        for who, start in turns.items():
            with start() as contender:
                _measure(times, who, contender)
            context.say(
                f"round {at + 1}, {who}: {times.rates[who][-1]:,.0f} tasks/s, round trip {times.p50[who][-1]:.2f} ms"
            )
        times.trips("fsync", fsyncs(context.workplace, _ROUND_TRIPS))
        with context.ours("grpc_echo") as echo:
            echo.ask("round_trips", count=_WARM_ROUND_TRIPS)
            times.trips("gRPC echo", echo.ask("round_trips", count=_ROUND_TRIPS)["ms"])
        with context.ours("thin_trip", context.workplace / f"thin-{at}") as thin:
            thin.ask("round_trips", count=_WARM_ROUND_TRIPS)
            times.trips("hops alone", thin.ask("round_trips", count=_ROUND_TRIPS)["ms"])
            context.say(f"round {at + 1}, hops alone: round trip {times.p50['hops alone'][-1]:.2f} ms")
    return Section(KEY, TITLE, _HOW, _targets(times), _measures(times))


def _measure(times: _Times, who: str, contender: Contender) -> None:
    contender.ask("tasks", count=_WARM_TASKS)
    best = min(contender.ask("tasks", count=_TASKS)["seconds"] for _ in range(_TURNS))
    times.rates[who].append(_TASKS / best)
    contender.ask("round_trips", count=_WARM_ROUND_TRIPS)
    times.trips(who, contender.ask("round_trips", count=_ROUND_TRIPS)["ms"])


def _targets(times: _Times) -> tuple[Target, ...]:
    ours = times.rates["hivefold"]
    return (
        Target("no-op tasks, hivefold over Ray", "x", ratios(ours, times.rates["Ray"]), 2.5, Better.MORE),
        Target("no-op tasks, hivefold over Dask distributed", "x", ratios(ours, times.rates["Dask"]), 6, Better.MORE),
        Target("no-op tasks a second", "/s", tuple(ours), 5000, Better.MORE),
        Target("one durable round trip, p50", "ms", tuple(times.p50["hivefold"]), 3, Better.LESS),
    )


def _measures(times: _Times) -> tuple[Measure, ...]:
    rates = [
        Measure("no-op tasks a second", who, "/s", tuple(found), Better.MORE) for who, found in times.rates.items()
    ]
    trips = [
        Measure(f"{_what(who)}, {name}", who, "ms", tuple(found), Better.LESS)
        for name, by_who in (("p50", times.p50), ("p99", times.p99))
        for who, found in by_who.items()
    ]
    return (*rates, *trips)


def _what(who: str) -> str:
    return "floor" if who in {"fsync", "gRPC echo", "hops alone"} else "one task there and back"

"""A fleet that has nothing to do: how fast it is ready, what it holds, what it takes."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Final

import psutil

from bench.context import Context
from bench.fleet import Fleet, fleet
from bench.results import Better, Measure, Section, Target

KEY: Final = "resting"
TITLE: Final = "Start and rest"
_NODES: Final = 3
_STARTS: Final = 5
_SETTLE_S: Final = 5.0
_WATCH_S: Final = 30.0
_HOW: Final = f"""\
`hivefold up` with {_NODES} nodes in an empty directory until it says that it is ready, {_STARTS} times. Then a fleet at
rest: after {_SETTLE_S:g} s, processor time and resident memory (whole processes, shared libraries counted in each) over
{_WATCH_S:g} s."""


def run(context: Context) -> Section:
    """Starts fleets, and watches the last one."""
    ready: list[float] = []
    for at in range(_STARTS - 1):
        with fleet(context.workplace / f"up-{at}", nodes=_NODES, threads=1) as started:
            ready.append(started.ready_s)
    with fleet(context.workplace / "up-last", nodes=_NODES, threads=1) as started:
        ready.append(started.ready_s)
        memory, share = _watch(started)
    context.say(f"ready in {min(ready):.2f} to {max(ready):.2f} s; " + _told(memory, share))
    return Section(KEY, TITLE, _HOW, _targets(ready, memory, share), _measures(ready, memory, share))


def _watch(started: Fleet) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Megabytes and percent of a core, by what a process is."""
    time.sleep(_SETTLE_S)
    processes = {name: psutil.Process(pid) for name, pid in started.pids.items()}
    began = time.perf_counter()
    before = {name: _seconds(process) for name, process in processes.items()}
    time.sleep(_WATCH_S)
    seconds = time.perf_counter() - began
    memory: dict[str, list[float]] = defaultdict(list)
    share: dict[str, list[float]] = defaultdict(list)
    for name, process in processes.items():
        kind = name if name in {"up", "coordinator", "nats"} else "node"
        memory[kind].append(process.memory_info().rss / 1e6)
        share[kind].append(100 * (_seconds(process) - before[name]) / seconds)
    return memory, share


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _told(memory: dict[str, list[float]], share: dict[str, list[float]]) -> str:
    return ", ".join(f"{kind} {max(memory[kind]):.0f} MB {max(share[kind]):.2f} %" for kind in memory)


def _targets(ready: list[float], memory: dict[str, list[float]], share: dict[str, list[float]]) -> tuple[Target, ...]:
    bounds = [Target("`hivefold up` to ready", "s", tuple(ready), 3, Better.LESS)]
    for kind in ("coordinator", "node"):
        bounds.append(Target(f"idle {kind}, resident memory", "MB", tuple(memory[kind]), 90, Better.LESS))
        bounds.append(Target(f"idle {kind}, share of a core", "%", tuple(share[kind]), 1, Better.LESS))
    return tuple(bounds)


def _measures(ready: list[float], memory: dict[str, list[float]], share: dict[str, list[float]]) -> tuple[Measure, ...]:
    found = [Measure("`hivefold up` to ready", "hivefold", "s", tuple(ready), Better.LESS)]
    for kind, megabytes in memory.items():
        found.append(Measure(f"idle {kind}, resident memory", "hivefold", "MB", tuple(megabytes), Better.LESS))
        found.append(Measure(f"idle {kind}, share of a core", "hivefold", "%", tuple(share[kind]), Better.LESS))
    return tuple(found)

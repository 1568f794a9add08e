"""How soon a coordinator leads again however long the log is, and what it then holds in memory."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from bench.broker import embedded_server, log_of
from bench.contender import ContenderError
from bench.context import Context
from bench.results import Better, Measure, Section, Target
from hivefold.config.daemons import CoordinatorConfig, write_coordinator_config
from hivefold.server.embedded import RunningServer

KEY: Final = "restart"
TITLE: Final = "Start over a long log"
_SHAPES: Final = {
    "nothing": {},
    "one million events, one a record": {"transitions": 1_000_000, "job_tasks": 100, "at_once": 1},
    "one million events": {"transitions": 1_000_000, "job_tasks": 10_000, "at_once": 200},
    "ten million events": {"transitions": 10_000_000, "job_tasks": 10_000, "at_once": 200},
}
_START_S: Final = 300.0
_SETTLE_S: Final = 3.0
_STOP_S: Final = 60.0
_HOW: Final = """\
Logs of task transitions (placed, succeeded) that the coordinator's own core decided, on a nats-server with fsync
always: one with an outcome a record in jobs of 100 tasks, the others with 200 outcomes a record in jobs of 10,000.
A coordinator folds the whole log once and writes a snapshot; then it is stopped and started again, from the start of
the process until it leads, a term of its own recorded. Resident memory is that of the whole process some seconds
later: of the one that folded every event, and of those that started from the snapshot. "Nothing" is a coordinator on
an empty log."""


@dataclass(slots=True)
class _Found:
    records: int = 0
    first_s: float = 0.0
    first_mb: float = 0.0
    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)


def run(context: Context) -> Section:
    """Fills each log, has it folded once, and restarts the coordinator round by round."""
    found: dict[str, _Found] = {}
    for number, (name, shape) in enumerate(_SHAPES.items()):
        found[name] = _measure(context, context.workplace / f"log-{number}", shape)
        its = found[name]
        context.say(
            f"{name}: {its.records:,} records, leads again in {max(its.seconds):.2f} s "
            f"with {max(its.megabytes):.0f} MB; folded from record 1 in {its.first_s:.1f} s with {its.first_mb:.0f} MB"
        )
    return Section(KEY, TITLE, _HOW, _targets(found), _measures(found))


def _measure(context: Context, directory: Path, shape: dict[str, int]) -> _Found:
    found = _Found()
    with embedded_server(directory / "nats") as server:
        if shape:
            with context.ours("hivefold_log") as contender:
                found.records = contender.ask("fill", **shape, **log_of(server))["records"]
        with _coordinator(server, directory) as first:
            found.first_s = first.seconds
            if shape:
                first.until("snapshot written")
            found.first_mb = first.settled_mb()
        for _ in range(context.rounds):
            with _coordinator(server, directory) as again:
                found.seconds.append(again.seconds)
                found.megabytes.append(again.settled_mb())
    return found


@dataclass(slots=True)
class _Started:
    """A coordinator that leads, and how long that took."""

    process: subprocess.Popen[bytes]
    said: Path
    began: float
    seconds: float = 0.0

    def until(self, event: str) -> float:
        """Waits until its log names an event; seconds since its start. Raises ContenderError."""
        deadline = time.perf_counter() + _START_S
        while time.perf_counter() < deadline and self.process.poll() is None:
            if event.encode() in self.said.read_bytes():
                return time.perf_counter() - self.began
            time.sleep(0.002)
        raise ContenderError(f"no {event!r} of the coordinator: {self.said.read_text(errors='replace')[-600:]}")

    def settled_mb(self) -> float:
        """Resident memory once it has come to rest."""
        time.sleep(_SETTLE_S)
        return float(psutil.Process(self.process.pid).memory_info().rss / 1e6)


@contextmanager
def _coordinator(server: RunningServer, directory: Path) -> Iterator[_Started]:
    """A coordinator process that leads; stopped in order at the end."""
    config, said = directory / "coordinator.toml", directory / "coordinator.log"
    data = directory / "coordinator"
    data.mkdir(parents=True, exist_ok=True)
    settings = CoordinatorConfig(
        server.core, server.nodes, system=server.system, coordinator_id="c1", port=0, data_dir=data
    )
    write_coordinator_config(config, settings)
    command = [str(Path(sys.executable).parent / "hivefold"), "coordinator", "run", "--config", str(config)]
    began = time.perf_counter()
    with said.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    started = _Started(process, said, began)
    try:
        started.seconds = started.until("replay_ms")
        yield started
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        finally:
            process.kill()
            process.wait()


def _targets(found: dict[str, _Found]) -> tuple[Target, ...]:
    none = max(found["nothing"].megabytes)
    targets = [
        Target(f"leads again over {name}", "s", tuple(its.seconds), 3, Better.LESS)
        for name, its in found.items()
        if its.records
    ]
    targets += [
        Target(f"resident memory over {name}, more than over nothing", "MB", _more(its, none), 200, Better.LESS)
        for name, its in found.items()
        if its.records
    ]
    return tuple(targets)


def _more(found: _Found, none: float) -> tuple[float, ...]:
    return tuple(each - none for each in (found.first_mb, *found.megabytes))


def _measures(found: dict[str, _Found]) -> tuple[Measure, ...]:
    measures = []
    for name, its in found.items():
        note = f"{name} ({its.records:,} records)" if its.records else name
        measures += [
            Measure(
                "start to leading",
                "from a snapshot" if its.records else "empty",
                "s",
                tuple(its.seconds),
                Better.LESS,
                note,
            ),
            Measure(
                "resident memory",
                "from a snapshot" if its.records else "empty",
                "MB",
                tuple(its.megabytes),
                Better.LESS,
                note,
            ),
        ]
        if its.records:
            measures += [
                Measure("start to leading", "from record 1", "s", (its.first_s,), Better.LESS, note),
                Measure("resident memory", "from record 1", "MB", (its.first_mb,), Better.LESS, note),
            ]
    return tuple(measures)

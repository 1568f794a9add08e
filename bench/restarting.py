"""How soon a coordinator leads again over a log, and what it then holds in memory: measured on real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psutil

from bench.broker import embedded_server, log_of
from bench.contender import ROOT, ContenderError
from bench.context import Context
from hivefold.config.daemons import CoordinatorConfig, write_coordinator_config
from hivefold.server.embedded import RunningServer
from hivefold.server.ports import any_free

_LONG_S: Final = 3600.0
"""How long a log may take to be made or folded: millions of records do."""
_SETTLE_S: Final = 3.0
_STOP_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Shape:
    """A log to start over: `transitions` of tasks in jobs of `job_tasks`, `at_once` outcomes in a record."""

    name: str
    transitions: int = 0
    job_tasks: int = 0
    at_once: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing has happened in it."""
        return not self.transitions


NOTHING: Final = Shape("nothing")
MILLION_SINGLE: Final = Shape("one million events, one a record", 1_000_000, 100, 1)
MILLION: Final = Shape("one million events", 1_000_000, 10_000, 200)
TEN_MILLION: Final = Shape("ten million events", 10_000_000, 10_000, 200)
TEN_MILLION_SINGLE: Final = Shape("ten million events, one a record", 10_000_000, 100, 1)


@dataclass(frozen=True, slots=True)
class Start:
    """One start: seconds from the process's beginning to a state that serves reads, and to a term of its own."""

    serving_s: float
    leading_s: float
    megabytes: float = 0.0


@dataclass(slots=True)
class Found:
    """What was measured over one log."""

    records: int = 0
    log_bytes: int = 0
    server_s: float = 0.0
    """How long nats-server takes to start over it."""
    suffix: int = 0
    """Records that came after the snapshot."""
    first: Start = field(default_factory=lambda: Start(0, 0))
    """From record 1; on an empty log the first start of all."""
    stopped: list[Start] = field(default_factory=list)
    """After SIGTERM: the lease is free."""
    killed: list[Start] = field(default_factory=list)
    """After kill -9: the process that died holds the lease."""

    @property
    def megabytes(self) -> list[float]:
        """Resident memory of those that started after a stop."""
        return [start.megabytes for start in self.stopped]


def prepare(context: Context, directory: Path, shape: Shape) -> Found:
    """Makes the log, folds it once, and leaves a snapshot behind that is as old as one can be."""
    found = Found()
    with embedded_server(directory / "nats") as server:
        if not shape.is_empty:
            found.records = _fill(context, server, shape)
    began = time.perf_counter()
    with embedded_server(directory / "nats") as server:
        found.server_s = time.perf_counter() - began
        found.log_bytes = sum(path.stat().st_size for path in (directory / "nats").rglob("*.blk"))
        with running_coordinator(configured(server, directory)) as first:
            if not shape.is_empty:
                first.until("snapshot written")
            found.first = first.settled()
        if not shape.is_empty:
            found.suffix = _age(context, server)
    return found


def restart(context: Context, directory: Path, found: Found) -> None:
    """Starts a coordinator over a log that was prepared, round by round: after a kill, then after a stop."""
    with embedded_server(directory / "nats") as server:
        config = configured(server, directory)
        with running_coordinator(config, stop=signal.SIGKILL):
            pass
        for _ in range(context.rounds):
            with running_coordinator(config, stop=signal.SIGKILL) as again:
                found.killed.append(again.start())
        with running_coordinator(config):
            pass
        for _ in range(context.rounds):
            with running_coordinator(config) as again:
                found.stopped.append(again.settled())


def _fill(context: Context, server: RunningServer, shape: Shape) -> int:
    with context.ours("hivefold_log") as contender:
        made = contender.ask_within(
            _LONG_S,
            "fill",
            transitions=shape.transitions,
            job_tasks=shape.job_tasks,
            at_once=shape.at_once,
            **log_of(server),
        )
    return int(made["records"])


def _age(context: Context, server: RunningServer) -> int:
    """Has a snapshot written that is just not old enough for a leader to write the next; records since."""
    with context.ours("hivefold_log") as contender:
        return int(contender.ask_within(_LONG_S, "snapshot", **log_of(server))["suffix"])


def configured(server: RunningServer, directory: Path) -> Path:
    """The file of a coordinator that has the same port at each start, as those of `hivefold up` do."""
    config, data = directory / "coordinator.toml", directory / "coordinator"
    data.mkdir(parents=True, exist_ok=True)
    port = any_free("127.0.0.1")
    settings = CoordinatorConfig(
        core=server.core, nodes=server.nodes, system=server.system, coordinator_id="c1", port=port, data_dir=data
    )
    write_coordinator_config(config, settings)
    return config


@dataclass(slots=True)
class _Started:
    """A coordinator process."""

    process: subprocess.Popen[bytes]
    said: Path
    began: float

    def until(self, event: str) -> float:
        """Waits until it tells an event; seconds from its start to that, by its own clock. Raises ContenderError."""
        deadline = time.monotonic() + _LONG_S
        while time.monotonic() < deadline and self.process.poll() is None:
            for line in self.said.read_bytes().splitlines():
                said = _told(line)
                if said.get("event") == event:
                    return datetime.fromisoformat(said["timestamp"]).timestamp() - self.began
            time.sleep(0.02)
        raise ContenderError(f"no {event!r} of the coordinator: {self.said.read_text(errors='replace')[-600:]}")

    def start(self) -> Start:
        """How long it took."""
        leading_s = self.until("leading")
        return Start(self.until("serving"), leading_s)

    def settled(self) -> Start:
        """How long it took, and its resident memory once it has come to rest."""
        start = self.start()
        time.sleep(_SETTLE_S)
        return Start(start.serving_s, start.leading_s, psutil.Process(self.process.pid).memory_info().rss / 1e6)


@contextmanager
def running_coordinator(config: Path, *, stop: signal.Signals = signal.SIGTERM) -> Iterator[_Started]:
    """A coordinator process that leads, as `hivefold up` starts it; ended by `stop`."""
    said = config.with_suffix(".log")
    began = time.time()
    with said.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "coordinator", "--config", config],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        started = _Started(process, said, began)
        started.until("leading")
        yield started
    finally:
        process.send_signal(stop)
        try:
            process.wait(_STOP_S)
        finally:
            process.kill()
            process.wait()


def _told(line: bytes) -> dict[str, Any]:
    """A line of its log; empty where it is none."""
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) and {"timestamp", "event"} <= said.keys() else {}

"""One campaign: a fleet under load, killed and paused at random and at its worst points, then healed and audited."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hivefold.client import connect
from hivefold.failpoints import Failpoint
from hivefold.server.binary import find_server
from hivefold.server.mending import finish_changes
from tests.integration.daemons import free_port
from tests.soak.audit import Auditor
from tests.soak.load import Load
from tests.soak.processes import Process, Tally, daemon

COORDINATOR_POINTS: Final[Mapping[str, float]] = {
    Failpoint.BEFORE_APPEND: 0.004,
    Failpoint.MID_BATCH: 0.01,
    Failpoint.AFTER_APPEND: 0.004,
    Failpoint.BEFORE_TERM: 0.05,
    Failpoint.AFTER_TERM: 0.05,
    Failpoint.MID_SNAPSHOT: 0.3,
    Failpoint.AFTER_CLOSE: 0.3,
    Failpoint.AFTER_ROLL: 0.3,
}
NODE_POINTS: Final[Mapping[str, float]] = {Failpoint.BEFORE_RESULT: 0.003, Failpoint.AFTER_RESULT: 0.003}
_SERVER_KILL_S: Final = (2.0, 6.0)
_PAUSE_EACH_S: Final = (3.0, 9.0)
_PAUSE_S: Final = (0.2, 7.0)
_COMPARE_EACH_S: Final = 1.0
SETTLE_S: Final = 180
"""How long all jobs may take to end once everything is well again."""
_SNAPSHOT_RECORDS: Final = 100
"""So that starts read snapshots, and die while one is written."""
_SEGMENT_RECORDS: Final = 250
"""So that the log goes on in a new segment now and then, and older ones are read from their files."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and how hard."""

    directory: Path
    kills: int
    seconds: float
    seed: int
    coordinators: int = 3
    nodes: int = 3


@dataclass(slots=True)
class Outcome:
    """What was done, and every promise that did not hold."""

    settings: Settings
    tally: Tally
    seconds: float = 0.0
    jobs: int = 0
    tasks: int = 0
    records: int = 0
    terms: int = 0
    comparisons: int = 0
    faults: list[str] = field(default_factory=list)


async def run(settings: Settings, tell: Callable[[str], None]) -> Outcome:
    """Runs one campaign; `tell` gets a line of progress now and then."""
    outcome = Outcome(settings, Tally())
    began = time.monotonic()
    server, daemons, addresses = await processes(settings, outcome.tally)
    server.start({})
    for process in daemons:
        process.start(COORDINATOR_POINTS if process.kind == "coordinator" else NODE_POINTS)
    try:
        async with connect(",".join(addresses)) as fleet:
            load, auditor = Load(fleet, settings.seed), Auditor(fleet)
            await _torment(settings, outcome, load, auditor, [server, *daemons], tell)
            tell("healing")
            for process in daemons:
                await process.stop(how=signal.SIGKILL)
                process.start({})
            open_jobs = await load.settle(SETTLE_S)
            try:
                await auditor.compare()
            except TimeoutError:
                outcome.faults.append("the fleet did not answer after it was healed")
            outcome.faults += [f"job {job} did not end" for job in sorted(open_jobs)]
            outcome.faults += load.twice + auditor.verdict(load.acknowledged) + outcome.tally.broke
            outcome.jobs, outcome.tasks = len(load.acknowledged), sum(load.acknowledged.values())
            outcome.records, outcome.terms = auditor.sequence, len(auditor.terms)
            outcome.comparisons = auditor.comparisons
    finally:
        for process in (*daemons, server):
            await process.stop(how=signal.SIGKILL)
    outcome.seconds = time.monotonic() - began
    return outcome


async def processes(settings: Settings, tally: Tally) -> tuple[Process, list[Process], list[str]]:
    """The server, the daemons, and where the coordinators listen."""
    directory = settings.directory
    port, monitor = free_port(), free_port()
    stored = {"store_dir": str(directory / "store"), "sync_interval": "always", "max_file_store": 1 << 44}
    content = {"host": "127.0.0.1", "port": port, "http": f"127.0.0.1:{monitor}", "jetstream": stored}
    (directory / "nats.conf").write_text(json.dumps(content))
    configured = (
        f"snapshot_records = {_SNAPSHOT_RECORDS}\nsegment_max_records = {_SEGMENT_RECORDS}\nkeep_segments = 1\n"
        f"archive_dir = '{directory / 'archive'}'\nkey_file = 'signing.key'\n"
    )
    (directory / "coordinator.toml").write_text(configured)
    binary = await find_server()
    command: list[str | Path] = [binary.path, "--config", directory / "nats.conf"]

    def mend() -> None:
        """As `hivefold up` does for its own server."""
        tally.mended.update(finish_changes(directory / "store"))

    server = Process("nats-server", "nats", command, directory / "nats.log", tally, mend)
    reached = ("--nats-servers", f"nats://127.0.0.1:{port}")
    found = ("--monitor-url", f"http://127.0.0.1:{monitor}")
    daemons, addresses = [], []
    for number in range(1, settings.coordinators + 1):
        listens = free_port()
        addresses.append(f"127.0.0.1:{listens}")
        arguments = (*reached, *found, "--port", str(listens), "--config", directory / "coordinator.toml")
        daemons.append(daemon("coordinator", f"c{number}", arguments, directory, tally))
    for number in range(1, settings.nodes + 1):
        options = (*reached, "--port", str(free_port()), "--slots", "2")
        daemons.append(daemon("node", f"n{number}", options, directory, tally))
    return server, daemons, addresses


async def _torment(
    settings: Settings,
    outcome: Outcome,
    load: Load,
    auditor: Auditor,
    processes: list[Process],
    tell: Callable[[str], None],
) -> None:
    """Load, kills and pauses side by side, until there were enough kills or the time is over."""
    draw = random.Random(settings.seed)
    parts = (load.run(), _kill(processes[0], draw), _pause(processes, draw, outcome.tally), _compare(auditor))
    tasks = [asyncio.create_task(part) for part in parts]
    until = time.monotonic() + settings.seconds
    try:
        while outcome.tally.kills < settings.kills and time.monotonic() < until and not auditor.faults:
            done, _ = await asyncio.wait(tasks, timeout=5, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
            tally = outcome.tally
            tell(
                f"{tally.kills} kills {dict(tally.killed)}, {tally.paused.total()} pauses, "
                f"{len(load.acknowledged)} jobs, record {auditor.sequence}, {auditor.comparisons} comparisons"
            )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for process in processes:
            process.send(signal.SIGCONT)


async def _kill(server: Process, draw: random.Random) -> None:
    """The server has no failpoints: it dies at any moment."""
    while True:
        await asyncio.sleep(draw.uniform(*_SERVER_KILL_S))
        server.send(signal.SIGKILL)


async def _pause(processes: list[Process], draw: random.Random, tally: Tally) -> None:
    while True:
        await asyncio.sleep(draw.uniform(*_PAUSE_EACH_S))
        process = draw.choice(processes)
        process.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(draw.uniform(*_PAUSE_S))
        finally:
            process.send(signal.SIGCONT)
        tally.paused[process.kind] += 1


async def _compare(auditor: Auditor) -> None:
    while True:
        with contextlib.suppress(TimeoutError):
            await auditor.compare()
        await asyncio.sleep(_COMPARE_EACH_S)

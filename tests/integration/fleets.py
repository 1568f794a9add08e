"""Real fleets for tests: `hivefold up` in a directory of its own. Whatever happens, nothing of it is left running."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

START_S: Final = 60
STOP_S: Final = 45
ANY_PORTS: Final = ("--port", "0", "--node-port", "0", "--nats-port", "0")


def environment(**more: str) -> dict[str, str]:
    """The environment without what would lead a command to another fleet."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HIVEFOLD_", "NATS_"))}
    return {**inherited, "NO_COLOR": "1", **more}


def hivefold(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs one command of the command line to its end."""
    command = [sys.executable, "-c", "from cli.main import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, env=environment(**more), check=False)


@dataclass(frozen=True)
class RunningFleet:
    """A fleet that `up` runs below `directory`."""

    directory: Path
    process: subprocess.Popen[str]

    @property
    def endpoints(self) -> Mapping[str, Any]:
        """DIR/endpoints.json as it is now."""
        content: Mapping[str, Any] = json.loads((self.directory / "endpoints.json").read_text())
        return content

    @property
    def address(self) -> str:
        """The coordinator, host:port."""
        return str(self.endpoints["coordinator"])

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs one command against this fleet."""
        return hivefold(*arguments, HIVEFOLD_DIR=str(self.directory))

    def json(self, *arguments: str | Path) -> Any:
        """What one command against this fleet prints with -o json; it must succeed."""
        done = self.run(*arguments, "-o", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def said(self) -> str:
        """What `up` wrote to standard error, and the ends of the daemons' logs."""
        logs = [self.directory / "up.log", *sorted((self.directory / "logs").glob("*.log"))]
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in logs)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Asks `up` to stop; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_S)


@contextlib.contextmanager
def running_fleet(directory: Path, *arguments: str, node_count: int = 3) -> Iterator[RunningFleet]:
    """Starts a fleet below `directory`, on ports that nobody uses, and ends it with all that belongs to it."""
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", "from cli.main import main; main()", "up", "-o", "jsonl", "--dir", str(directory)]
    with (directory / "up.log").open("a") as log:
        process = subprocess.Popen(
            [*command, "--nodes", str(node_count), *ANY_PORTS, *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment(),
            start_new_session=True,
        )
    fleet = RunningFleet(directory, process)
    try:
        assert process.stdout is not None
        with process.stdout as output:
            ready = output.readline()
            assert ready, f"the fleet did not start\n{fleet.said()}"
            yield fleet
    finally:
        if process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                fleet.stop()
        process.kill()
        process.wait()
        end_all(directory)


def end_all(directory: Path) -> None:
    """Kills every process that has `directory` in its command line: a killed `up` leaves its daemons behind."""
    for process in psutil.process_iter(["pid", "cmdline"]):
        named = any(argument.startswith(f"{directory}/") for argument in process.info["cmdline"] or ())
        if named and process.info["pid"] != os.getpid():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

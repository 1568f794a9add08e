"""The demo's fleet: `hivefold up` as anyone would start it, and the means to hurt it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.local.layout import Layout, owned

PROGRAM = Path(sys.executable).with_name("hivefold")
MARK = "made-by-demo"
"""Only a directory with this file is emptied."""
READY_S = 30.0
STOP_S = 30.0


class DemoError(Exception):
    """The demo cannot go on; says where to look."""


class Fleet:
    """`hivefold up` below a directory that belongs to the demo, started from nothing each time.

    It runs with --no-restart: what the demo kills stays dead, until the demo itself starts it again.
    """

    def __init__(self, directory: Path, node_count: int) -> None:
        self.directory = directory
        self._node_count = node_count
        self._up: subprocess.Popen[bytes] | None = None
        self._coordinator: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; does not wait. Raises ConfigError where a fleet runs in the directory already."""
        mark = self.directory / MARK
        if self.directory.exists() and not mark.exists() and any(self.directory.iterdir()):
            raise DemoError(f"{self.directory} holds something else than a demo: give another --dir")
        layout = Layout(self.directory)
        layout.make()
        mark.touch()
        with owned(self.directory):
            for entry in self.directory.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
        layout.make()
        self._up = self._spawn(
            ("up", "--dir", str(self.directory), "--nodes", str(self._node_count), "--no-restart", "-o", "json"), "up"
        )

    def wait_until_ready(self) -> None:
        """Returns once it serves. Raises DemoError with what it said when it does not."""
        assert self._up is not None
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and self._up.poll() is None:
            # `up` prints its endpoints when all parts answer.
            with contextlib.suppress(ValueError):
                json.loads((self.directory / "logs" / "up.out").read_text())
                return
            time.sleep(0.05)
        raise DemoError(f"the fleet did not start:\n{self._words('up')}")

    @property
    def coordinator(self) -> str:
        """The coordinator's address."""
        return str(self._endpoints()["coordinator"])

    def kill(self, name: str) -> int:
        """Kills a process of the fleet with SIGKILL; its process id. Returns when it is dead."""
        pid = int(self._endpoints()["pids"][name])
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + STOP_S
        while name in self._endpoints()["pids"] and time.monotonic() < deadline:
            time.sleep(0.01)
        return pid

    def start_coordinator(self) -> None:
        """Starts a coordinator with the configuration of the killed one: all it knows is in the log."""
        config = self.directory / "config" / "coordinator.toml"
        self._coordinator = self._spawn(("coordinator", "run", "--config", str(config)), "coordinator-again")

    def check(self) -> None:
        """Raises DemoError where a process that should run does not."""
        for name, process in (("up", self._up), ("coordinator-again", self._coordinator)):
            if process is not None and process.poll() is not None:
                raise DemoError(f"{name} ended with exit code {process.returncode}:\n{self._words(name)}")

    def stop(self) -> None:
        """Stops everything in order; what does not stop in time is killed. Idempotent."""
        for process in (self._up, self._coordinator):
            if process is None or process.poll() is not None:
                continue
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _spawn(self, arguments: Sequence[str], name: str) -> subprocess.Popen[bytes]:
        logs = self.directory / "logs"
        with (logs / f"{name}.out").open("wb") as out, (logs / f"{name}.log").open("wb") as said:
            return subprocess.Popen(
                [PROGRAM, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=said, start_new_session=True
            )

    def _endpoints(self) -> dict[str, Any]:
        endpoints: dict[str, Any] = json.loads((self.directory / "endpoints.json").read_text())
        return endpoints

    def _words(self, name: str) -> str:
        lines = (self.directory / "logs" / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join([*lines[-12:], f"(more in {self.directory / 'logs'})"])

"""Daemons started one by one, against a NATS server that knows nothing of hivefold."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hivefold.server.binary import find_server
from hivefold.server.ports import any_free
from tests.integration.fleets import environment

FSYNC_ALWAYS = "always"
FSYNC_INTERVAL = "2m"


def free_port() -> int:
    return any_free("127.0.0.1")


def until_open(port: int, process: subprocess.Popen[str], said: Path) -> None:
    deadline = time.monotonic() + 40
    while True:
        assert process.poll() is None, said.read_text()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.05)


@contextlib.contextmanager
def nats(directory: Path, sync_interval: str | None, host: str = "127.0.0.1") -> Iterator[tuple[str, str]]:
    """A plain server without accounts, as a team may have it: its URL and its monitoring URL."""
    directory.mkdir()
    port, monitor = free_port(), free_port()
    settings: dict[str, object] = {"host": host, "port": port, "http": f"127.0.0.1:{monitor}"}
    if sync_interval is not None:
        store = {"store_dir": str(directory / "store"), "sync_interval": sync_interval, "max_file_store": 1 << 44}
        settings["jetstream"] = store
    (directory / "nats.conf").write_text(json.dumps(settings))
    binary = asyncio.run(find_server())
    with (directory / "nats.log").open("w") as log:
        process = subprocess.Popen([binary.path, "--config", directory / "nats.conf"], stderr=log, text=True)
    try:
        until_open(port, process, directory / "nats.log")
        yield f"nats://127.0.0.1:{port}", f"http://127.0.0.1:{monitor}"
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def daemon(said: Path, *arguments: str, program: Path | None = None, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A daemon by the command line, of the `program` in that folder or of this one; ended in order at the end."""
    if program is not None:
        more["PYTHONPATH"] = str(program)
    with said.open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from cli.main import main; main()", *arguments],
            stdout=log,
            stderr=log,
            text=True,
            env=environment(**more),
            cwd=program,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()

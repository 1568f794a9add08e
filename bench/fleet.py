"""A whole fleet as a user starts it: `hivefold up` in a directory of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.contender import ContenderError

_STOP_S: Final = 60.0
_WORDS: Final = 600


@dataclass(frozen=True, slots=True)
class Fleet:
    """A running fleet: where its coordinator listens, its processes by name, how long the start took."""

    coordinator: str
    pids: dict[str, int]
    ready_s: float


@contextmanager
def fleet(directory: Path, *, nodes: int, threads: int, coordinators: int = 1) -> Iterator[Fleet]:
    """A fleet for the length of a block. Ready means: `hivefold up` says so."""
    directory.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [
        Path(sys.executable).parent / "hivefold",
        "up",
        "--dir",
        directory,
        "--nodes",
        str(nodes),
        "--coordinators",
        str(coordinators),
    ]
    command += ["--threads", str(threads), "--port", "0", "--node-port", "0", "--nats-port", "0", "-o", "jsonl"]
    began = time.perf_counter()
    with (directory / "up.log").open("wb") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said)
    try:
        yield _until_ready(process, directory, began)
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def endpoints(directory: Path) -> dict[str, Any]:
    """Where the processes of a running fleet are now."""
    found: dict[str, Any] = json.loads((directory / "endpoints.json").read_text(encoding="utf-8"))
    return found


def _until_ready(process: subprocess.Popen[bytes], directory: Path, began: float) -> Fleet:
    assert process.stdout is not None
    line = process.stdout.readline()
    ready_s = time.perf_counter() - began
    if not line:
        words = (directory / "up.log").read_text(encoding="utf-8", errors="replace")[-_WORDS:]
        raise ContenderError(f"hivefold up did not start: {words}")
    places: dict[str, Any] = json.loads(line)
    return Fleet(places["coordinator"], {"up": process.pid, **places["pids"]}, ready_s)

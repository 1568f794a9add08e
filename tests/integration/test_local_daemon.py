"""One daemon of a local fleet: started, stopped, left behind, and its log."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from cli.local.daemon import Daemon, Program, environment, tail, turn

pytestmark = pytest.mark.integration

MODULE = """
import signal, sys, time
sys.stderr.write("up with " + " ".join(sys.argv[1:]) + chr(10))
if "deaf" in sys.argv[2]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """A program that says its arguments and then waits; a deaf one ignores SIGTERM."""
    (tmp_path / "waiting_daemon.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return Program(
        name="waiting",
        module="waiting_daemon",
        config=tmp_path / "waiting.toml",
        log=tmp_path / "waiting.log",
        lock=tmp_path / "waiting.lock",
        stop_s=5.0,
    )


@pytest.fixture
async def daemon(program: Program) -> AsyncIterator[Daemon]:
    made = Daemon(program)
    yield made
    made.kill()
    if made.pid:
        await made.wait()


async def said(path: Path, word: str) -> None:
    async with asyncio.timeout(20):
        while word not in tail(path, 100):
            await asyncio.sleep(0.02)


async def test_a_daemon_runs_with_its_configuration_and_stops_when_asked(daemon: Daemon, program: Program) -> None:
    """It gets --config, its output goes to its log, SIGTERM ends it."""
    await daemon.start()
    await said(program.log, f"--config {program.config}")
    assert daemon.pid > 0

    await daemon.stop()
    await daemon.stop()
    assert (daemon.pid, await daemon.wait()) == (0, -signal.SIGTERM)


async def test_a_daemon_that_does_not_stop_in_time_is_killed(program: Program) -> None:
    """Stopping is bounded."""
    deaf = replace(program, config=program.config.with_name("deaf.toml"), stop_s=0.1)
    daemon = Daemon(deaf)
    await daemon.start()
    await said(deaf.log, "up with")

    await daemon.stop()
    assert await daemon.wait() == -signal.SIGKILL


async def test_a_daemon_left_behind_is_ended_by_the_next_start(daemon: Daemon, program: Program) -> None:
    """When `up` was killed its daemons live on; the next one ends them before it starts its own."""
    await daemon.start()
    await said(program.log, "up with")

    successor = Daemon(program)
    await successor.start()
    try:
        assert await daemon.wait() == -signal.SIGTERM
        assert successor.pid > 0
    finally:
        await successor.stop()


async def test_ctrl_c_does_not_reach_a_daemon(daemon: Daemon, program: Program) -> None:
    """It leads a process group of its own: its owner decides when it stops."""
    await daemon.start()

    assert os.getpgid(daemon.pid) == daemon.pid != os.getpgid(0)


def test_a_daemon_inherits_nothing_that_overrides_its_file() -> None:
    """Addresses and settings of the caller's shell do not reach it; tracing and log settings do."""
    inherited = {
        "PATH": "/bin",
        "NATS_URL": "nats://elsewhere",
        "HIVEFOLD_NODE_PORT": "1",
        "HIVEFOLD_LOG_LEVEL": "debug",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector",
    }

    assert set(environment(inherited)) == {
        "PATH",
        "HIVEFOLD_LOG_LEVEL",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "PYTHONUNBUFFERED",
    }


def test_a_log_is_turned_over_when_it_is_too_large(tmp_path: Path) -> None:
    """The writer keeps its open file: what it appends next is at the start of an empty one."""
    path = tmp_path / "node-1.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"old line\n" * 100)
        turn(path, limit_bytes=10_000)
        assert path.stat().st_size == 900

        turn(path, limit_bytes=90)
        writer.write(b"new line\n")

    assert path.read_bytes() == b"new line\n"
    assert path.with_name("node-1.log.1").read_bytes() == b"old line\n" * 10
    turn(tmp_path / "missing.log", limit_bytes=1)

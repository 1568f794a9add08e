"""One daemon of a local fleet as a process of its own: started, watched, stopped; its log kept within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hivefold.errors import ConfigError
from hivefold.limits import COORDINATOR_STOP_S, DAEMON_LOG_BYTES, LAST_WORDS_LINES, LOCAL_POLL_S

_TAIL_BYTES: Final = 64 * 1024
_KEPT_PREFIXES: Final = ("HIVEFOLD_LOG_", "HIVEFOLD_DEBUG", "HIVEFOLD_FAILPOINTS")


@dataclass(frozen=True, slots=True)
class Program:
    """What is run: `python -m module --config config`, its log, and the lock that it holds while it lives."""

    name: str
    module: str
    config: Path
    log: Path
    lock: Path
    stop_s: float = COORDINATOR_STOP_S


class Daemon:
    """A process of `program`. Ctrl-C in the terminal does not reach it: its owner stops it."""

    essential = False

    def __init__(self, program: Program, *, essential: bool = False) -> None:
        self.name = program.name
        self.essential = essential
        self._program = program
        self._process: asyncio.subprocess.Process | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """The process; 0 while it has none."""
        alive = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process is not None and alive else 0

    async def start(self) -> None:
        """Starts the process; does not wait until it serves. A process left over from before is ended first."""
        lock = await _take_lock(self._program.lock)
        try:
            with self._program.log.open("ab") as log:
                self._log_start = log.tell()
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",  # the working directory may hold a folder called `node`
                    "-m",
                    self._program.module,
                    "--config",
                    self._program.config,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment(os.environ),
                    start_new_session=True,
                    pass_fds=(lock,),
                )
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(self._process.pid).encode(), 0)
        finally:
            os.close(lock)  # the process holds it from now on

    async def wait(self) -> int:
        """Waits until the process ends; its exit code (negative: the signal)."""
        assert self._process is not None, "started before it is waited for"
        return await self._process.wait()

    async def stop(self) -> None:
        """Asks the process to end, and kills it when it has not within its time. Idempotent."""
        if not self.pid:
            return
        self._send(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._program.stop_s):
                await self.wait()
        except TimeoutError:
            self.kill()
            await self.wait()

    def kill(self) -> None:
        """Ends the process at once."""
        if self.pid:
            self._send(signal.SIGKILL)

    def last_words(self) -> str:
        """The last lines of its log since its last start."""
        return tail(self._program.log, LAST_WORDS_LINES, after=self._log_start)

    def turn_log(self) -> None:
        """Moves the log's content aside when it is too large; the process goes on writing to the same file."""
        turn(self._program.log, DAEMON_LOG_BYTES)

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """What a daemon inherits: nothing that would override its configuration file."""
    return {
        **{
            name: value
            for name, value in inherited.items()
            if not name.startswith(("HIVEFOLD_", "NATS_")) or name.startswith(_KEPT_PREFIXES)
        },
        "PYTHONUNBUFFERED": "1",
    }


def tail(path: Path, lines: int, *, after: int = 0) -> str:
    """The last lines of a file, those from byte `after` on unless it became shorter; empty when there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(after if after <= size else 0, size - _TAIL_BYTES))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
    except OSError:
        return ""


def turn(path: Path, limit_bytes: int) -> None:
    """Copies a file that grew beyond `limit_bytes` to FILE.1 and empties it: writers append, so they notice nothing."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > limit_bytes:
            path.with_name(f"{path.name}.1").write_bytes(path.read_bytes()[-limit_bytes:])
            os.truncate(path, 0)


async def _take_lock(path: Path) -> int:
    """Opens and locks `path`; ends the process that still holds it, which a killed `up` left behind."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if _locked(lock):
                return lock
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(os.pread(lock, 32, 0)), number)
            deadline = asyncio.get_running_loop().time() + COORDINATOR_STOP_S
            while not _locked(lock) and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(LOCAL_POLL_S)
        if not _locked(lock):
            raise ConfigError(f"a process of an earlier start still holds {path}; end it, then start again")
    except BaseException:
        os.close(lock)
        raise
    return lock


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

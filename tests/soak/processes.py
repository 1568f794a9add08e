"""The processes of a fleet, each started again whenever it ends; what ended them is counted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hivefold.failpoints import VARIABLE
from tests.integration.fleets import environment

_AGAIN_S: Final = 0.1
_STOP_S: Final = 40


@dataclass(slots=True)
class Tally:
    """How often what was done to which kind of process."""

    killed: Counter[str] = field(default_factory=Counter)
    """By SIGKILL, from outside or at a failpoint."""
    paused: Counter[str] = field(default_factory=Counter)
    """By SIGSTOP, and let go again."""
    stepped_down: Counter[str] = field(default_factory=Counter)
    """Ended by itself because it may not go on: exit code 75."""
    mended: Counter[str] = field(default_factory=Counter)
    """Streams whose change a killed server had not finished."""
    broke: list[str] = field(default_factory=list)
    """Any other end: there must be none."""

    @property
    def kills(self) -> int:
        """All of them."""
        return self.killed.total()


class Process:
    """One daemon, started again whenever it ends, until it is stopped."""

    def __init__(
        self,
        kind: str,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        tally: Tally,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """`before` is called before each start."""
        self.kind = kind
        self.name = name
        self._command = command
        self._log = log
        self._tally = tally
        self._before = before
        self._running: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._armed = ""

    @property
    def pid(self) -> int:
        """The process; 0 while there is none."""
        return self._running.pid if self._running is not None and self._running.returncode is None else 0

    def start(self, failpoints: Mapping[str, float]) -> None:
        """Keeps it running, with these failpoints armed."""
        self._armed = ",".join(f"{name}={probability}" for name, probability in failpoints.items())
        self._keeping = asyncio.create_task(self._keep())

    async def stop(self, *, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends it for good, in order unless told otherwise."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
            self._keeping = None
        if self._running is not None and self.pid:
            self.send(signal.SIGCONT)
            self.send(how)
            try:
                async with asyncio.timeout(_STOP_S):
                    await self._running.wait()
            except TimeoutError:
                self._tally.broke.append(f"{self.name} did not end within {_STOP_S} s of {how.name}")
                self.send(signal.SIGKILL)
                await self._running.wait()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, if there is a process."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def said(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-2000:] if self._log.exists() else ""

    async def _keep(self) -> None:
        while True:
            self._before()
            with self._log.open("ab") as log:
                self._running = await asyncio.create_subprocess_exec(
                    *self._command, stdout=log, stderr=log, env=environment(**{VARIABLE: self._armed})
                )
            code = await self._running.wait()
            match code:
                case -9:
                    self._tally.killed[self.kind] += 1
                case 75:
                    self._tally.stepped_down[self.kind] += 1
                case _:
                    self._tally.broke.append(f"{self.name} ended with {code}: {self.said()[-600:]}")
            await asyncio.sleep(_AGAIN_S)


def daemon(kind: str, name: str, arguments: Sequence[str | Path], directory: Path, tally: Tally) -> Process:
    """A coordinator or a node by the command line."""
    command = [sys.executable, "-c", "from cli.main import main; main()", kind, "run", "--id", name, *arguments]
    return Process(kind, name, [*command, "--data-dir", directory / name], directory / f"{name}.log", tally)

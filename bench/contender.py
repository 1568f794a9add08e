"""Starts a contender, asks it for measurements, ends it with everything that it started."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
_START_S: Final = 120.0
_ANSWER_S: Final = 300.0
_STOP_S: Final = 30.0
_WORDS: Final = 600


class ContenderError(Exception):
    """A contender did not start, answer in time, or live long enough. Says what it printed last."""


class Contender:
    """A running contender. `module` is below bench.contenders, `python` the interpreter of its environment."""

    def __init__(self, python: Path, module: str, arguments: tuple[str, ...], words: Path) -> None:
        self._module = module
        self._words = words
        with words.open("wb") as said:
            self._process = subprocess.Popen(
                [python, "-m", f"bench.contenders.{module}", *arguments],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,
            )
        self._pending = b""
        self._answer(_START_S)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def ask(self, verb: str, **arguments: object) -> dict[str, Any]:
        """The answer to one verb. Raises ContenderError when it takes longer than five minutes, or fails."""
        return self.ask_within(_ANSWER_S, verb, **arguments)

    def ask_within(self, within_s: float, verb: str, **arguments: object) -> dict[str, Any]:
        """The answer to one verb that takes long. Raises ContenderError."""
        _pipe(self._process.stdin).write(json.dumps({"do": verb, **arguments}).encode() + b"\n")
        _pipe(self._process.stdin).flush()
        return self._answer(within_s)

    def stop(self) -> None:
        """Ends it in order, then whatever is left of its process group."""
        with suppress(OSError):
            _pipe(self._process.stdin).close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        _pipe(self._process.stdout).close()

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        until = time.monotonic() + timeout_s
        output = _pipe(self._process.stdout)
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise ContenderError(f"{self._module} did not answer within {timeout_s:g} s: {self._last_words()}")
                piece = os.read(output.fileno(), 1 << 16)
                if not piece:
                    raise ContenderError(f"{self._module} ended early: {self._last_words()}")
                self._pending += piece
        line, _, self._pending = self._pending.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        return self._words.read_text(encoding="utf-8", errors="replace")[-_WORDS:].strip() or "it said nothing"


@contextmanager
def contending(python: Path, module: str, *arguments: str, workplace: Path) -> Iterator[Contender]:
    """A contender for the length of a block; what it prints goes to a file in `workplace`."""
    contender = Contender(python, module, arguments, workplace / f"{module}.log")
    try:
        yield contender
    finally:
        contender.stop()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "opened with the process"
    return pipe

"""Keeps the parts of a local fleet running: announces the end of each, starts it again with a growing wait."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from actors.supervision import GiveUp, Restart, RestartPolicy, judge, remembered
from hivefold.clock import Clock
from hivefold.errors import ConfigError, UnavailableError

POLICY: Final = RestartPolicy(max_failures=10, window_ms=60_000, first_wait_ms=100, longest_wait_ms=5_000)


class Part(Protocol):
    """A process that can be started again. `essential`: without it there is no fleet."""

    name: str
    essential: bool

    @property
    def pid(self) -> int:
        """The process; 0 while it has none."""
        ...

    async def start(self) -> None:
        """Starts it. Raises ConfigError, OSError."""
        ...

    async def wait(self) -> int:
        """Waits until it ends; its exit code (negative: the signal)."""
        ...

    def last_words(self) -> str:
        """What it said last."""
        ...


class Supervisor:
    """Watches started parts until it is closed.

    `announce` gets a line for people, `changed` is called whenever a process came or went. Without `restart` what
    ended stays down.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        clock: Clock,
        announce: Callable[[str], None],
        changed: Callable[[], None],
        restart: bool = True,
        policy: RestartPolicy = POLICY,
    ) -> None:
        self._parts = parts
        self._clock = clock
        self._announce = announce
        self._changed = changed
        self._restart = restart
        self._policy = policy

    async def run(self) -> None:
        """Watches until cancelled. Raises UnavailableError when an essential part cannot be kept running."""
        async with contextlib.AsyncExitStack() as stack:
            tasks = [asyncio.create_task(self._keep(part)) for part in self._parts]
            stack.push_async_callback(_cancelled, tasks)
            await asyncio.gather(*tasks)

    async def _keep(self, part: Part) -> None:
        failures: tuple[int, ...] = ()
        while True:
            ended = how_it_ended(await part.wait())
            self._changed()
            if not self._restart:
                self._announce(f"{part.name} ended ({ended}) and stays down (--no-restart)")
                return
            while True:
                now_ms = self._clock.monotonic_ms()
                failures = remembered((*failures, now_ms), now_ms, self._policy)
                verdict = judge(failures, now_ms, self._policy)
                if isinstance(verdict, GiveUp):
                    self._give_up(part, verdict, ended)
                    return
                failure = await self._start_again(part, verdict, ended)
                if failure is None:
                    break
                ended = failure

    async def _start_again(self, part: Part, verdict: Restart, ended: str) -> str | None:
        """Starts `part` after its wait; why that failed, or None."""
        self._announce(f"{part.name} ended ({ended}); starting it again in {verdict.after_ms} ms")
        await asyncio.sleep(verdict.after_ms / 1000)
        try:
            await part.start()
        except (ConfigError, OSError) as error:
            return f"cannot start: {error}"
        self._announce(f"{part.name} runs again (process {part.pid})")
        self._changed()
        return None

    def _give_up(self, part: Part, verdict: GiveUp, ended: str) -> None:
        words = f"{part.name} ended ({ended}) {verdict.failures} times within a minute"
        self._announce(f"{part.last_words()}\n{words}; its last words are above")
        if part.essential:
            raise UnavailableError(f"{words}: the fleet cannot go on without it")


def how_it_ended(code: int) -> str:
    """An exit code for people; negative codes are signals."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

"""Keeping the parts of a local fleet running."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from actors.supervision import RestartPolicy
from cli.local.supervisor import Supervisor, how_it_ended
from hivefold.clock import ManualClock
from hivefold.errors import ConfigError, UnavailableError

AT_ONCE = RestartPolicy(max_failures=3, window_ms=60_000, first_wait_ms=0, longest_wait_ms=0)


class FakePart:
    """Ends with each of the given codes in turn; then stays alive. `starts` is what each new start does."""

    def __init__(
        self, codes: list[int], *, essential: bool = False, starts: list[Exception | None] | None = None
    ) -> None:
        self.name = "node-1"
        self.essential = essential
        self.pid = 1
        self._codes = codes
        self._starts = starts or []

    async def start(self) -> None:
        failure = self._starts.pop(0) if self._starts else None
        if failure is not None:
            raise failure
        self.pid += 1

    async def wait(self) -> int:
        if self._codes:
            return self._codes.pop(0)
        await asyncio.Event().wait()
        raise AssertionError("never ends")

    def last_words(self) -> str:
        return "the last words"


class Watched:
    """A supervisor of one part and what it said."""

    def __init__(self, part: FakePart, *, restart: bool = True) -> None:
        self.lines: list[str] = []
        self.changes = 0
        self.supervisor = Supervisor(
            [part],
            clock=ManualClock(),
            announce=self.lines.append,
            changed=self._changed,
            restart=restart,
            policy=AT_ONCE,
        )

    async def run(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await self.supervisor.run()

    def _changed(self) -> None:
        self.changes += 1


async def test_what_ends_is_started_again() -> None:
    """Each end is announced, and so is each new start; watchers hear of both."""
    part = FakePart([-9, 1])
    watched = Watched(part)
    await watched.run()

    assert part.pid == 3
    assert [line.split(";")[0] for line in watched.lines if "ended" in line] == [
        "node-1 ended (SIGKILL)",
        "node-1 ended (exit code 1)",
    ]
    assert watched.lines[-1] == "node-1 runs again (process 3)"
    assert watched.changes == 4


async def test_a_start_that_fails_counts_as_an_end() -> None:
    """A port that is taken for a moment does not end the fleet."""
    part = FakePart([-9], starts=[ConfigError("port taken"), None])
    watched = Watched(part)
    await watched.run()

    assert part.pid == 2
    assert "cannot start: port taken" in "".join(watched.lines)


async def test_a_part_that_keeps_failing_is_given_up_with_its_last_words() -> None:
    """Restarts are bounded; the reason is shown."""
    part = FakePart([1] * 10)
    watched = Watched(part)
    await watched.run()

    assert part.pid == 1 + AT_ONCE.max_failures
    assert "the last words" in watched.lines[-1]


async def test_without_an_essential_part_there_is_no_fleet() -> None:
    """Giving up the server or the coordinator ends the whole fleet."""
    with pytest.raises(UnavailableError, match="cannot go on"):
        await Watched(FakePart([1] * 10, essential=True)).run()


async def test_without_restart_the_dead_stay_dead() -> None:
    """--no-restart announces the end and leaves it at that."""
    part = FakePart([-9])
    watched = Watched(part, restart=False)
    await watched.run()

    assert part.pid == 1
    assert watched.lines == ["node-1 ended (SIGKILL) and stays down (--no-restart)"]
    assert watched.changes == 1


def test_unknown_signals_are_told_by_number() -> None:
    """Any exit code can be told."""
    assert [how_it_ended(code) for code in (0, -15, -200)] == ["exit code 0", "SIGTERM", "signal 200"]

"""Lets a model that was never weighed be loaded alone: what others load or unload meanwhile would spoil its measure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from node.residency.limits import QUIET_S


class Quiet:
    """Loads and unloads pass here, many at once or one alone. Nobody waits longer than QUIET_S."""

    def __init__(self) -> None:
        self._moving = 0
        self._wanted = 0
        """Of those that want to be alone, or are."""
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def turn(self, *, alone: bool) -> AsyncIterator[None]:
        """Around a load or an unload; `alone` begins when all others ended and holds up those that come."""
        if alone:
            await self._until(lambda: not self._wanted)
            self._wanted += 1
        try:
            await self._until(lambda: not self._moving if alone else not self._wanted)
            self._moving += 1
            try:
                yield
            finally:
                self._moving -= 1
        finally:
            self._wanted -= alone
            self._changed.set()

    async def _until(self, free: Callable[[], bool]) -> None:
        if free():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(QUIET_S):
                while not free():
                    self._changed.clear()
                    await self._changed.wait()

"""Many calls under way at once, their answers in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

_Answer = TypeVar("_Answer")


async def in_order(
    calls: AsyncGenerator[Coroutine[Any, Any, _Answer], None], width: int
) -> AsyncGenerator[_Answer, None]:
    """Runs at most `width` calls at once and yields their answers in the calls' order.

    The first failure is raised as it is, in its turn; calls still under way are cancelled. Close it
    (contextlib.aclosing) when it is left early.
    """
    running: deque[asyncio.Task[_Answer]] = deque()
    try:
        async for call in calls:
            running.append(asyncio.create_task(call))
            if len(running) == width:
                yield await running.popleft()
        while running:
            yield await running.popleft()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await calls.aclose()

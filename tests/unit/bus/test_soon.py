"""What is done a little later, once for all who ask."""

from __future__ import annotations

import asyncio

import pytest

from hivefold.bus import soon
from hivefold.bus.soon import Soon


async def test_all_who_ask_in_a_moment_are_served_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those who ask after that, once more."""
    monkeypatch.setattr(soon, "ACK_DELAY_MS", 0)
    done: list[int] = []
    served = asyncio.Event()

    def act() -> None:
        done.append(1)
        served.set()

    work = Soon(act)
    for _ in range(2):
        served.clear()
        for _ in range(3):
            work.ask()
        async with asyncio.timeout(5):
            await served.wait()

    assert done == [1, 1]


async def test_it_can_be_done_at_once_and_then_not_again() -> None:
    """At an end nobody waits; what nobody asked for is not done."""
    done: list[int] = []
    work = Soon(lambda: done.append(1))
    work.now()
    work.ask()
    work.now()
    work.now()

    assert done == [1]

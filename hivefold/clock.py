"""The one place that reads clocks."""

from __future__ import annotations

import time
from typing import Final, Protocol

_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A lease lapses and a node falls silent while a machine sleeps, too: Linux' monotonic clock would not notice."""


class Clock(Protocol):
    """Wall time for records and people, monotonic time for waits."""

    def now_us(self) -> int:
        """Unix time in microseconds."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds since an arbitrary start; never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_us(self) -> int:
        """Unix time in microseconds."""
        return time.time_ns() // 1000

    def monotonic_ms(self) -> int:
        """Milliseconds since an arbitrary start; never goes back. The time in which the machine sleeps counts."""
        return time.clock_gettime_ns(_BOOT_CLOCK) // 1_000_000


class ManualClock:
    """A clock that moves only when told to. For tests and the simulation."""

    def __init__(self, now_us: int = 1_700_000_000_000_000) -> None:
        self._now_us = now_us
        self._start_us = now_us

    def now_us(self) -> int:
        """Unix time in microseconds."""
        return self._now_us

    def monotonic_ms(self) -> int:
        """Milliseconds since this clock was made."""
        return (self._now_us - self._start_us) // 1000

    def advance_ms(self, milliseconds: int) -> None:
        """Moves both clocks forward."""
        self._now_us += milliseconds * 1000


def stopwatch_ns() -> int:
    """Nanoseconds since an arbitrary start; never goes back. For measuring how long something took."""
    return time.perf_counter_ns()


def give_way() -> None:
    """Lets other threads have the interpreter. MUST NOT be called on an event loop."""
    time.sleep(0)

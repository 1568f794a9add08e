"""An asyncio event loop on virtual time: when nothing is ready, the clock jumps to the next timer."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class RealWorldError(AssertionError):
    """Something inside the simulation read real time or real randomness: the run could not be repeated."""


class StuckError(AssertionError):
    """Every task waits for another one, and no timer is set."""


class SimTask(asyncio.Task[T]):
    """A task whose place in sets does not depend on its address: cancelling a group has one order only."""

    _numbers = itertools.count()

    def __init__(self, coroutine: Generator[Any, None, T] | Coroutine[Any, Any, T], **options: Any) -> None:
        self._number = next(SimTask._numbers)
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop of one thread without files or sockets. With `shuffle`, what is ready together runs in a drawn order."""

    _ready: deque[asyncio.Handle]

    def __init__(self, draw: random.Random, *, shuffle: bool) -> None:
        super().__init__()
        SimTask._numbers = itertools.count()
        self._now_s = 0.0
        self._draw = draw
        self._shuffle = shuffle
        self._selector = self
        self.died: list[str] = []
        """What tasks that nobody waited for died of."""
        self.set_task_factory(lambda loop, coroutine, **options: SimTask(coroutine, loop=loop, **options))
        self.set_exception_handler(lambda _loop, context: self.died.append(_said(context)))

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self._now_s

    def select(self, timeout: float | None) -> list[Any]:
        """What a selector does, and this one never waits: it moves the clock."""
        if timeout is None:
            raise StuckError("every task waits for ever")
        self._now_s += timeout
        if self._shuffle and len(self._ready) > 1:
            self._draw.shuffle(self._ready)
        return []

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """There is one thread only."""
        return self.call_soon(callback, *args, context=context)

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none: nothing here has a file."""


def _said(context: dict[str, Any]) -> str:
    return f"{context.get('message')}: {context.get('exception')!r}"


@contextmanager
def sealed() -> Iterator[None]:
    """Inside, whoever reads the machine's clocks, sleeps or draws real randomness fails at once."""
    names = [(time, name) for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter_ns", "sleep")]
    guarded: list[tuple[Any, str]] = [*names, (os, "urandom"), (random, "random"), (random, "randint")]
    kept = [(module, name, getattr(module, name)) for module, name in guarded]
    for module, name, _ in kept:
        setattr(module, name, _refuse(f"{module.__name__}.{name}"))
    try:
        yield
    finally:
        for module, name, original in kept:
            setattr(module, name, original)


def _refuse(name: str) -> Callable[..., Any]:
    def refuse(*_args: Any, **_options: Any) -> Any:
        raise RealWorldError(f"{name} was called inside the simulation: take the clock and the entropy that are given")

    return refuse

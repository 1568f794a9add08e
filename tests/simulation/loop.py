"""An asyncio event loop on virtual time: when nothing is ready, the clock jumps to the next timer.

What runs belongs to a machine's process (`Owner`); a frozen one does nothing until it is thawed, as after SIGSTOP.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import os
import random
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class RealWorldError(AssertionError):
    """Something inside the simulation reached for real time, chance, threads or sockets: no run could be repeated."""


class StuckError(AssertionError):
    """Every task waits for another one, and no timer is set."""


class Owner:
    """A process. All that it starts is its own; what it is to do while it is frozen waits."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._held: list[SimHandle] = []
        self.frozen = False
        self.context = copy_context()
        self.context.run(_OWNER.set, self)
        loop.owners.append(self)

    def freeze(self) -> None:
        """As SIGSTOP."""
        self.frozen = True

    def thaw(self) -> None:
        """As SIGCONT: all that was due meanwhile is done now, in order."""
        self.frozen = False
        held, self._held = self._held, []
        self._loop.resume(held)

    def hold(self, handle: SimHandle) -> None:
        """Keeps what cannot be done now."""
        self._held.append(handle)

    def call(self, act: Callable[[Unpack[Ts]], object], *arguments: *Ts) -> None:
        """Does something inside the process, at once or when it is thawed."""
        if self.frozen:
            self._loop.call_soon(act, *arguments, context=self.context.copy())
        else:
            self.context.copy().run(act, *arguments)


_OWNER: ContextVar[Owner | None] = ContextVar("owner", default=None)


class SimTask(asyncio.Task[T]):
    """A task whose place in sets does not depend on its address: cancelling a group has one order only."""

    _numbers = itertools.count()

    def __init__(self, coroutine: Generator[Any, None, T] | Coroutine[Any, Any, T], **options: Any) -> None:
        self._number = next(SimTask._numbers)
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._number


def _nothing() -> None:
    """What a cancelled handle does."""


class SimHandle(asyncio.TimerHandle):
    """A callback that waits for its turn or its time. Made for every step of every task: it has what is needed only."""

    __slots__ = ()

    def __init__(self, callback: Callable[..., object], args: Any, context: Context, when_s: float) -> None:
        self._callback, self._args, self._context = callback, args, context
        self._when = when_s
        self._cancelled = False

    def cancel(self) -> None:
        """It is passed over; what it holds is let go."""
        self._cancelled = True
        self._callback, self._args = _nothing, ()


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop of one thread without files or sockets. With `shuffle`, what is ready together runs in a drawn order."""

    _stopping: bool

    def __init__(self, draw: random.Random, *, shuffle: bool) -> None:
        super().__init__()
        SimTask._numbers = itertools.count()
        self.now_s = 0.0
        """Virtual seconds since the start."""
        self._draw = draw
        self._shuffle = shuffle
        self._turn: deque[SimHandle] = deque()
        self._timers: list[tuple[float, int, SimHandle]] = []
        self._timer_numbers = itertools.count()
        self.owners: list[Owner] = []
        self.died: list[str] = []
        """What tasks that nobody waited for died of."""
        self.set_exception_handler(lambda _loop, context: self.died.append(_said(context)))

    get_debug = staticmethod(bool)  # asked for each future: this says no without a frame

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self.now_s

    def resume(self, handles: list[SimHandle]) -> None:
        """What was held is ready."""
        self._turn.extend(handles)

    def create_task(  # type: ignore[override]  # no name: nobody here reads it
        self, coroutine: Generator[Any, None, T] | Coroutine[Any, Any, T], **options: Any
    ) -> SimTask[T]:
        """A task of this loop."""
        return SimTask(coroutine, loop=self, **options)

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> SimHandle:
        """It runs in the next turn."""
        handle = SimHandle(callback, args, context or copy_context(), 0.0)
        self._turn.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> SimHandle:
        """It runs after `delay` virtual seconds."""
        return self.call_at(self.now_s + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> SimHandle:
        """It runs at a virtual time; of two at the same time, that first which was asked for first."""
        handle = SimHandle(callback, args, context or copy_context(), when)
        heapq.heappush(self._timers, (when, next(self._timer_numbers), handle))
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> SimHandle:
        """There is one thread only."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, _executor: Any, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        """There is one thread only: the work is done when the caller waits for it."""
        future: asyncio.Future[T] = self.create_future()

        def work() -> None:
            if future.done():
                return
            try:
                future.set_result(function(*args))
            except Exception as error:  # noqa: BLE001 - whoever waits for the work is told
                future.set_exception(error)

        self.call_soon(work)
        return future

    def _run_once(self) -> None:
        """Turns until somebody stops the loop: what is ready; when nothing is, the clock moves to the next timer."""
        turn, timers = self._turn, self._timers
        while True:
            if not turn:
                self._move_clock()
            while timers and timers[0][0] <= self.now_s:
                turn.append(heapq.heappop(timers)[2])
            if self._shuffle and len(turn) > 1:
                self._draw.shuffle(turn)
            for _ in range(len(turn)):
                handle = turn.popleft()
                if handle._cancelled:
                    continue
                context = handle._context
                owner = context.get(_OWNER)
                if owner is not None and owner.frozen:
                    owner.hold(handle)
                    continue
                try:
                    context.run(handle._callback, *handle._args)
                except Exception as error:  # noqa: BLE001 - as asyncio does: the loop goes on, and the world looks
                    self.call_exception_handler({"message": "a callback failed", "exception": error})
            if self._stopping:
                return

    def _move_clock(self) -> None:
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers:
            raise StuckError("every task waits for ever")
        self.now_s = max(self.now_s, timers[0][0])


_yielding = asyncio.sleep


def sleep(delay: float, result: Any = None) -> Awaitable[Any]:
    """As asyncio.sleep, without a coroutine of its own: most of what waits here waits for time."""
    if delay <= 0:
        return _yielding(0, result)
    loop = asyncio.get_running_loop()
    future = asyncio.Future[Any](loop=loop)
    loop.call_at(loop.time() + delay, _wake, future, result)
    return future


def _wake(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _said(context: dict[str, Any]) -> str:
    return f"{context.get('message')}: {context.get('exception')!r}"


_CLOCKS = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep")
_CHANCE = ("random", "randint", "randrange", "choice", "uniform", "shuffle", "getrandbits", "seed")


@contextmanager
def sealed() -> Iterator[None]:
    """Inside, whoever reads the machine's clock, draws real chance, opens a socket or starts a thread fails at once."""
    guarded: list[tuple[Any, str]] = [
        *((time, name) for name in _CLOCKS),
        *((random, name) for name in _CHANCE),
        *((os, name) for name in ("urandom", "getrandom")),
        *((uuid, name) for name in ("uuid1", "uuid4")),
        (socket.socket, "connect"),
        (socket.socket, "bind"),
        (threading.Thread, "start"),
    ]
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

"""Where the event loop and the actors' threads meet: the only place.

Two verbs, named for their direction: `await ask(...)` from the loop to an actor, `outlet.tell(...)`
from an actor to the loop. The loop never blocks on an actor, an actor never waits for the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Generic, TypeVar, cast

from actors.runtime import ActorRef
from hivefold.errors import HivefoldError, Reason, UnavailableError

M = TypeVar("M")
R = TypeVar("R")
T = TypeVar("T")


class AskTimeoutError(UnavailableError):
    """The actor did not answer in time. It is still at it; a late answer is dropped."""

    default_reason = Reason.DEADLINE_EXCEEDED


async def ask(ref: ActorRef[M, R], message: M, *, deadline_ms: int) -> R:
    """Sends `message` and waits for the reply, at most `deadline_ms` milliseconds, without a thread.

    The caller's context variables (trace, log keys) are the behaviour's while it handles the
    message. Raises what the behaviour raised, AskTimeoutError, InboxFullError, ActorStoppedError.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[R] = loop.create_future()

    def reply(value: R | None, error: BaseException | None) -> None:
        try:
            loop.call_soon_threadsafe(_settle, future, value, error)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    ref.ask(message, reply)
    timer = loop.call_later(deadline_ms / 1000, _expire, future, ref.name, deadline_ms)
    try:
        return await future
    finally:
        timer.cancel()


def _settle(future: asyncio.Future[R], value: R | None, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(cast(R, value))
    elif isinstance(error, HivefoldError):
        future.set_exception(error)
    else:
        future.set_exception(UnavailableError(f"the actor ended with {error!r}; try again"))


def _expire(future: asyncio.Future[R], name: str, deadline_ms: int) -> None:
    if not future.done():
        future.set_exception(AskTimeoutError(f"{name} did not answer within {deadline_ms} ms; it may be overloaded"))


class Outlet(Generic[T]):
    """A bounded way out of an actor. When the loop lags, the oldest message is dropped, and counted.

    Made on the loop that reads it. For readings and notices, of which the latest counts; replies go through `ask`.
    """

    def __init__(self, capacity: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._messages: deque[T] = deque(maxlen=capacity)
        self._lock = threading.Lock()
        self._ready = asyncio.Event()
        self._woken = False
        self.dropped = 0

    def tell(self, message: T) -> None:
        """Hands `message` to the loop and returns at once. From any thread."""
        with self._lock:
            self.dropped += len(self._messages) == self._messages.maxlen
            self._messages.append(message)
            wake, self._woken = not self._woken, True
        if wake:
            try:
                self._loop.call_soon_threadsafe(self._ready.set)
            except RuntimeError:  # the loop is closed: nobody reads any more
                return

    async def next(self) -> T:
        """The next message, oldest first."""
        while True:
            with self._lock:
                if self._messages:
                    return self._messages.popleft()
                self._ready.clear()
                self._woken = False
            await self._ready.wait()

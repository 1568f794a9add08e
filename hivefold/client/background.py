"""An event loop in a thread of its own, for callers that have none, or one that is busy running them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from hivefold.errors import InvalidRequestError, Reason, UnavailableError

_Value = TypeVar("_Value")


class Background:
    """Runs coroutines for the threads that wait for them. `start` comes first, `stop` last."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread; it does not keep a program from ending."""
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main(ready)), name="hivefold", daemon=True)
        self._thread.start()
        ready.result()

    def run(self, call: Coroutine[Any, Any, _Value]) -> _Value:
        """What the coroutine gives, or raises; it has the caller's context, and is cancelled by Ctrl-C."""
        if self._thread is None or self._thread is threading.current_thread():
            call.close()
            if self._thread is None:
                raise UnavailableError(
                    "the client is not open: use it in `with connect() as fleet`", reason=Reason.SERVER_UNAVAILABLE
                )
            raise InvalidRequestError("a callback cannot call the fleet: note what it is told, and call afterwards")
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    def stop(self) -> None:
        """Cancels what runs and ends the thread."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join()
            self._thread = None

    async def _main(self, ready: Future[None]) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        ready.set_result(None)
        await self._over.wait()

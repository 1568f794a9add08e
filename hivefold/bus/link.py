"""A NATS client that never gives up and hands messages over without a task each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import nats.errors
from nats.aio.client import Client


class Link(Client):
    """nats-py's client, corrected where it would end a daemon's connection.

    Closes for good only when told to; tells any number of listeners of a reconnect.
    """

    def __init__(self) -> None:
        super().__init__()
        self._reconnect_listeners: list[Callable[[], None]] = []

    def on_reconnect(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls `listener` after each reconnect until the returned function is called."""
        self._reconnect_listeners.append(listener)
        return lambda: self._reconnect_listeners.remove(listener)

    def announce_reconnect(self) -> None:
        """Tells the listeners that the connection is up again."""
        for listener in tuple(self._reconnect_listeners):
            listener()

    async def abandon(self) -> None:
        """Lets go of a connection that never came up; no callback is called."""
        await self._close(Client.CLOSED, do_cbs=False)

    async def _process_err(self, err_msg: str) -> None:
        # nats-py closes for good on any error but a stale connection or a permission; a daemon comes back.
        if "permissions violation" in err_msg:
            await super()._process_err(err_msg)
            return
        error = nats.errors.Error(f"nats: {err_msg}")
        await self._error_cb(error)
        await self._process_op_err(error)

    async def _process_pong(self) -> None:
        # A pong whose flush timed out would end nats-py's read loop with InvalidStateError.
        self._pings_outstanding = 0
        if self._pongs:
            pong: asyncio.Future[bool] = self._pongs.pop(0)
            self._pongs_received += 1
            if not pong.done():
                pong.set_result(True)

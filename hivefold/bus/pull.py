"""Pulls messages from a durable consumer so that each is pushed the moment it is stored.

nats-py's fetch makes a subscription task and a timer per call. Here one inbox takes everything, pull
requests are renewed before they run dry, and take() hands over all that has arrived at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import structlog

from hivefold.bus import frames
from hivefold.bus.link import Link
from hivefold.errors import BrokerUnavailableError, HivefoldError
from hivefold.limits import (
    BROKER_RETRY_MAX_MS,
    BROKER_RETRY_MS,
    PULL_BYTES,
    PULL_EXPIRES_S,
    PULL_HEARTBEAT_S,
    PULL_MESSAGES,
)

_log = structlog.get_logger(__name__)
_NANOSECONDS: Final = 1_000_000_000
_HEARTBEAT: Final = 100
_SILENCE_S: Final = 2.5 * PULL_HEARTBEAT_S
_ENDED: Final = ("request timeout", "message size exceeds maxbytes", "batch completed")
"""Why a request ends in good health."""


class Pulled(NamedTuple):
    """A message as it came. `reply` is where it is acknowledged; it also holds its sequences."""

    subject: bytes
    reply: bytes
    data: bytes
    headers: bytes | None


class Puller:
    """Keeps pull requests waiting at one consumer. Does its work inside take() and the read loop: no task."""

    def __init__(
        self, link: Link, stream: str, consumer: str, *, rebind: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """`rebind` is awaited before each (re)start of pulling: it may make the consumer anew.

        Without it what has arrived stays in the buffer through a restart; with it, it is dropped,
        for the new consumer begins again.
        """
        self._link = link
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}".encode()
        self._name = f"{stream}/{consumer}"
        self._rebind = rebind
        self._inbox = b""
        self._listening = 0
        self._retired = 0
        """The inbox before: without `rebind`, what the server still sends there counts."""
        self._deaf = False
        """Whether nothing comes over this inbox: the next one may do better."""
        self._asked = 0
        self._open: dict[bytes, int] = {}
        """Requests that the server holds, oldest first: number to messages left."""
        self._buffer: list[Pulled] = []
        self._held_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._bound = False
        self._closed = False
        self._wait_ms = 0
        self._heard = 0.0
        self._unhook = link.on_reconnect(self.unbind)

    async def take(self) -> list[Pulled]:
        """Waits for messages; returns all that have arrived, in order. Empty once closed."""
        while not self._closed:
            if not self._bound:
                await self._bind()
            elif self._buffer:
                taken, self._buffer = self._buffer, []
                self._held_bytes = self._wait_ms = 0
                self._replenish()
                return taken
            else:
                await self._arrival()
        return []

    def unbind(self) -> None:
        """Starts over: what the server still has in flight for us counts as lost."""
        self._bound = False
        if self._rebind is not None:
            self._buffer = []
            self._held_bytes = 0
        self._wake()

    async def close(self) -> None:
        """Ends take(). Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._unhook()
        self._wake()
        await self._link.unlisten(self._retired)
        await self._link.unlisten(self._listening)

    async def _bind(self) -> None:
        """Asks anew; where the consumer is made anew, from a new inbox: nothing meant for the old one is mixed in.

        Elsewhere a reconnect leaves the inbox as it is: requests outlive connections, and what they bring may be on
        its way.
        """
        if self._rebind is not None or self._deaf:
            await self._link.unlisten(self._retired if self._rebind is None else self._listening)
            self._retired, self._listening, self._deaf = self._listening, 0, False
        self._open.clear()
        if self._wait_ms:
            await asyncio.sleep(self._wait_ms / 1000)
        self._wait_ms = min(BROKER_RETRY_MAX_MS, max(BROKER_RETRY_MS, self._wait_ms * 2))
        try:
            await self._link.until_up()
            self._bound = True
            if not self._listening:
                inbox = self._link.new_inbox()
                self._inbox = inbox.encode() + b"."
                self._listening = await self._link.listen(f"{inbox}.*", self._arrived)
            if self._rebind is not None:
                await self._rebind()
            self._heard = asyncio.get_running_loop().time()
            self._replenish()
        except HivefoldError as error:
            self._bound = False
            if self._link.is_closed:
                self._closed = True
            else:
                _log.warning("pull.retry", consumer=self._name, error=error.message)

    async def _arrival(self) -> None:
        """Waits for a wake-up, or until the server has been silent for too long."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(_SILENCE_S, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None
        if self._bound and not self._buffer and loop.time() - self._heard >= _SILENCE_S:
            _log.warning("pull.silent", consumer=self._name)
            self._deaf = True
            self.unbind()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _arrived(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self._heard = asyncio.get_running_loop().time()
        if not reply:
            self._status(subject, headers)
            return
        self._buffer.append(Pulled(subject, reply, data, headers))
        self._held_bytes += len(data)
        if self._open:
            number = next(iter(self._open))
            if self._open[number] > 1:
                self._open[number] -= 1
            else:
                del self._open[number]
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _status(self, subject: bytes, headers: bytes | None) -> None:
        code, text = frames.status_of(headers)
        if code == _HEARTBEAT:
            self._wait_ms = 0
            return
        self._open.pop(subject[len(self._inbox) :], None)
        if text.lower().startswith(_ENDED):
            self._replenish()
        else:
            # The consumer is gone or the server is going: whoever owns it makes it anew.
            self.unbind()

    def _replenish(self) -> None:
        """Asks for more once half of what may be held or asked for is used up."""
        room = PULL_MESSAGES - len(self._buffer) - sum(self._open.values())
        # A request ends at PULL_BYTES, too: while they are not taken, the next one would bring as much again.
        if room * 2 < PULL_MESSAGES or self._held_bytes * 2 > PULL_BYTES or not self._bound:
            return
        self._asked += 1
        body = {
            "batch": room,
            "max_bytes": PULL_BYTES,
            "expires": int(PULL_EXPIRES_S * _NANOSECONDS),
            "idle_heartbeat": int(PULL_HEARTBEAT_S * _NANOSECONDS),
        }
        number = b"%d" % self._asked
        command = frames.publish(self._next, json.dumps(body).encode(), reply=self._inbox + number)
        try:
            self._link.write(command)
        except BrokerUnavailableError:
            self.unbind()
        else:
            self._open[number] = room

"""A NATS client that never gives up and hands messages over without a task each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

import nats.aio.client
import nats.errors
from nats.aio.client import PING_PROTO, Client
from nats.aio.subscription import Subscription

from hivefold.bus import frames
from hivefold.bus.parser import FrameParser
from hivefold.bus.transport import Transport
from hivefold.errors import BrokerUnavailableError
from hivefold.limits import BROKER_READ_BYTES

Handler = Callable[[bytes, bytes, bytes, bytes | None], None]
"""Called with subject, reply, data, header block. MUST return at once and not raise."""

_NO_RESPONDERS: Final = 503
_COPIED_BYTES: Final = 64 * 1024
"""Data below this size goes out in one piece with its command; copying larger data would cost more."""

# nats-py reads 32 KiB at a time, for which chunks of half a MiB take half as much processor time again.
nats.aio.client.DEFAULT_BUFFER_SIZE = BROKER_READ_BYTES
nats.aio.client.TcpTransport = Transport  # type: ignore[attr-defined]


class Reply(NamedTuple):
    """The answer to a request: its data and header block."""

    data: bytes
    headers: bytes | None


class NoRespondersError(BrokerUnavailableError):
    """Nobody serves the subject: the stream or the consumer is missing, or JetStream is off."""


class Link(Client):
    """nats-py's client, corrected where it would end a daemon's connection, with a short way in and out.

    It closes for good only when told to. `listen` and `ask` skip nats-py's queue and task per
    subscription: they carry the hot paths.
    """

    def __init__(self) -> None:
        super().__init__()
        self._up = asyncio.Event()
        self._reconnect_listeners: list[Callable[[], None]] = []
        self._handlers: dict[int, Handler] = {}
        self._ps = self._parser = FrameParser(self, self._handlers)
        self._listening: dict[int, Subscription] = {}
        self._replies: dict[bytes, asyncio.Future[Reply]] = {}
        self._reply_prefix = b""
        self._asked = 0

    # -- the connection ---------------------------------------------------------

    def on_reconnect(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls `listener` after each reconnect until the returned function is called."""
        self._reconnect_listeners.append(listener)
        return lambda: self._reconnect_listeners.remove(listener)

    def announce_up(self, *, again: bool) -> None:
        """Tells those who wait, and after a reconnect the listeners, that the connection is up."""
        self._up.set()
        if again:
            for listener in tuple(self._reconnect_listeners):
                listener()

    def announce_down(self) -> None:
        """Ends the requests in flight: their answers will not come."""
        self._up.clear()
        for waiting in self._replies.values():
            if not waiting.done():
                waiting.set_exception(BrokerUnavailableError("the NATS connection was lost; wait for the reconnect"))

    async def until_up(self) -> None:
        """Waits until the connection is up. Raises BrokerUnavailableError once it is closed."""
        while not self.is_connected:
            self._require_open()
            await self._up.wait()

    async def close(self) -> None:
        """Ends the connection; whoever waits is told."""
        if self._pending:
            # nats-py would write it last of all, and leave half open what it closes where the socket is gone by then.
            with suppress(BrokerUnavailableError):
                self.write()
            self._pending, self._pending_data_size = [], 0
        try:
            await super().close()
        except asyncio.CancelledError:
            # nats-py waits for a transport that broke meanwhile: not this task is cancelled but what it waits for.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
        self.announce_down()
        self._up.set()

    async def abandon(self) -> None:
        """Lets go of a connection that never came up; no callback is called."""
        if self._flush_queue is None:
            return  # refused before nats-py began
        self._error_cb = _ignore
        await self._close(Client.CLOSED, do_cbs=False)

    # -- in and out -------------------------------------------------------------

    async def listen(self, subject: str, handler: Handler) -> int:
        """Calls `handler` for each message on `subject`, across reconnects. Returns a number for unlisten.

        Raises BrokerUnavailableError once the connection is closed.
        """
        self._require_open()
        number = self._sid + 1
        self._handlers[number] = handler
        self._listening[number] = await self.subscribe(subject)
        return number

    async def unlisten(self, number: int) -> None:
        """Ends listening; the handler is not called again. Idempotent."""
        self._handlers.pop(number, None)
        subscription = self._listening.pop(number, None)
        if subscription is not None and not self.is_closed:
            await subscription.unsubscribe()

    def write(self, *commands: bytes) -> None:
        """Sends protocol commands, or their parts, now; large ones are not copied.

        Raises BrokerUnavailableError while disconnected: nothing is kept for later.
        """
        self._require_open()
        if not self.is_connected or self._transport is None:
            raise BrokerUnavailableError("the NATS connection is down; wait for the reconnect")
        try:
            if self._pending:
                # What nats-py still holds comes first: order is kept.
                self._pending += commands
                self._transport.writelines(self._pending)
                self._pending_data_size = 0
                self._pending = []
            elif len(commands) == 1:
                self._transport.write(commands[0])
            else:
                self._transport.writelines(list(commands))
        except ConnectionResetError as error:
            raise _lost(error) from None

    def write_now(self, command: bytes) -> None:
        """As `write`, before the loop's turn is over: for what somebody waits for, alone. Raises as `write` does."""
        if not isinstance(self._transport, Transport) or not self.is_connected or self._pending:
            self.write(command)
            return
        try:
            self._transport.write_now(command)
        except ConnectionResetError as error:
            raise _lost(error) from None

    async def ask(
        self, subject: str, data: bytes = b"", *, headers: bytes = b"", before: bytes = b"", timeout_s: float
    ) -> Reply:
        """Sends `before` (whole commands), then a request, and waits for its answer.

        Raises NoRespondersError, or BrokerUnavailableError when the answer does not come: whether
        the request took place is then unknown.
        """
        if not self._reply_prefix:
            prefix = self.new_inbox()
            self._reply_prefix = prefix.encode() + b"."
            await self.listen(f"{prefix}.*", self._answered)
        self._asked += 1
        token = b"%d" % self._asked
        name, answer_to = frames.subject_bytes(subject), self._reply_prefix + token
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Reply] = loop.create_future()
        self._replies[token] = reply
        # Cheaper than asyncio.timeout on a path that every record, work message and outcome takes.
        timer = loop.call_later(timeout_s, _expire, reply, subject, timeout_s)
        try:
            if len(data) < _COPIED_BYTES:
                self.write(before + frames.publish(name, data, reply=answer_to, headers=headers))
            else:
                head = frames.publish_head(name, len(data), reply=answer_to, headers=headers)
                self.write(before + head, data, b"\r\n")
            answer = await reply
        finally:
            timer.cancel()
            del self._replies[token]
        if not answer.data and frames.status_of(answer.headers)[0] == _NO_RESPONDERS:
            raise NoRespondersError(
                f"nothing serves {subject}: start nats-server with JetStream (-js), and a coordinator for the streams"
            )
        return answer

    def _answered(self, subject: bytes, _reply: bytes, data: bytes, headers: bytes | None) -> None:
        waiting = self._replies.get(subject[len(self._reply_prefix) :])
        if waiting is not None and not waiting.done():
            waiting.set_result(Reply(data, headers))

    def _require_open(self) -> None:
        if self.is_closed:
            raise BrokerUnavailableError("the NATS connection is closed; connect anew")

    # -- nats-py's insides ------------------------------------------------------

    async def _read_loop(self) -> None:
        # What is for handlers goes to them out of the socket's callback, without waking the task that reads.
        reader = getattr(self._transport, "_io_reader", None)
        if isinstance(reader, asyncio.StreamReader):
            reader.feed_data = _shortcut(reader, self._parser.take)  # type: ignore[method-assign,assignment]
        await super()._read_loop()

    async def _process_err(self, err_msg: str) -> None:
        # nats-py closes for good on any error but a stale connection or a permission; a daemon comes back.
        if "permissions violation" in err_msg:
            await super()._process_err(err_msg)
            return
        error = nats.errors.Error(f"nats: {err_msg}")
        await self._error_cb(error)
        await self._process_op_err(error)

    async def _process_op_err(self, e: Exception) -> None:
        if not self.is_closed:
            self.announce_down()
        await super()._process_op_err(e)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        # nats-py's ping overtakes what waits in its buffer, so that its flush proves nothing.
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        self._pending.append(PING_PROTO)
        self._pending_data_size += len(PING_PROTO)
        await self._flush_pending()

    async def _process_pong(self) -> None:
        # A pong whose flush timed out would end nats-py's read loop with InvalidStateError.
        self._pings_outstanding = 0
        if self._pongs:
            pong: asyncio.Future[bool] = self._pongs.pop(0)
            self._pongs_received += 1
            if not pong.done():
                pong.set_result(True)


def _lost(error: ConnectionResetError) -> BrokerUnavailableError:
    """What a write to a socket that is gone comes to before nats-py has learned of it."""
    return BrokerUnavailableError(f"the NATS connection was lost ({error}); wait for the reconnect")


def _expire(reply: asyncio.Future[Reply], subject: str, timeout_s: float) -> None:
    if not reply.done():
        reply.set_exception(
            BrokerUnavailableError(
                f"NATS did not answer on {subject} within {timeout_s:g} s; check its load and this user's permissions"
            )
        )


def _shortcut(reader: asyncio.StreamReader, take: Callable[[bytes], bytes]) -> Callable[[bytes], None]:
    """In place of the reader's `feed_data`: what `take` leaves goes the usual way, in order."""
    feed_data = reader.feed_data

    def feed(data: bytes) -> None:
        rest = data if reader._buffer else take(data)  # type: ignore[attr-defined]  # noqa: SLF001
        if rest:
            feed_data(rest)

    return feed


async def _ignore(_error: Exception) -> None:
    """Nobody listens any more."""

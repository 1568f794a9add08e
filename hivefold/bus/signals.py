"""Signals over core NATS."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from hivefold.bus import frames
from hivefold.bus.link import Link
from hivefold.bus.port import Message
from hivefold.errors import BrokerUnavailableError

_log = structlog.get_logger(__name__)


class NatsSignals:
    """hivefold.bus.port.Signals."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def connected(self) -> bool:
        """Whether the broker connection is up now."""
        return self._link.is_connected

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Calls `callback` after each reconnect."""
        self._link.on_reconnect(callback)

    def publish(self, message: Message) -> None:
        """Sends at most once. Raises InvalidRequestError for a malformed subject."""
        headers = frames.header_block(message.headers) if message.headers else b""
        command = frames.publish(frames.subject_bytes(message.subject), message.data, headers=headers)
        try:
            self._link.write_now(command)
        except BrokerUnavailableError:
            _log.debug("signal.dropped", subject=message.subject)

    async def subscribe(self, subject: str, handler: Callable[[Message], None]) -> NatsSubscription:
        """Calls `handler` for each message; survives reconnects."""

        def deliver(raw_subject: bytes, _reply: bytes, data: bytes, headers: bytes | None) -> None:
            subject = raw_subject.decode(errors="replace")
            try:
                handler(Message(subject, data, frames.parse_headers(headers)))
            except Exception:  # noqa: BLE001 - see below
                # One bad message must not end the connection that all others share.
                _log.exception("signal.handler_failed", subject=subject)

        return NatsSubscription(self._link, await self._link.listen(subject, deliver))


class NatsSubscription:
    """hivefold.bus.port.Subscription."""

    def __init__(self, link: Link, number: int) -> None:
        self._link = link
        self._number = number

    async def stop(self) -> None:
        """Ends it; the handler is not called again afterwards."""
        await self._link.unlisten(self._number)

"""The connection's own writes: whatever the socket says, callers get one of hivefold's errors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from nats.aio.client import Client

from hivefold.bus.link import Link
from hivefold.errors import BrokerUnavailableError


class ClosedTransport:
    """A socket that was closed a moment ago, as uvloop tells it."""

    def write(self, _data: bytes) -> None:
        raise RuntimeError("the handler is closed")

    def writelines(self, _data: list[bytes]) -> None:
        raise RuntimeError("the handler is closed")

    def close(self) -> None:
        self.closed = True

    async def wait_closed(self) -> None:
        return


@pytest.mark.parametrize("commands", [(b"PING\r\n",), (b"PUB a 1\r\n", b"x\r\n")])
async def test_a_socket_that_was_just_closed_is_an_unavailable_broker(commands: tuple[bytes, ...]) -> None:
    """nats-py learns of it later; until then it says that it is connected. Found by the soak: a node died of it."""
    link: Any = Link()
    link._status = Client.CONNECTED
    link._transport = ClosedTransport()
    with pytest.raises(BrokerUnavailableError, match="wait for the reconnect"):
        link.write(*commands)


async def test_a_connection_whose_socket_is_gone_closes_in_order() -> None:
    """What it had not sent goes nowhere; whoever waits is told. Found by the soak: a coordinator ended in an error."""
    link: Any = Link()
    link._status = Client.CONNECTED
    link._flush_queue = asyncio.Queue()
    link._current_server = object()
    link._transport = ClosedTransport()
    link._pending, link._pending_data_size = [b"UNSUB 1\r\n"], 9
    await link.close()
    assert link.is_closed
    assert link._transport.closed

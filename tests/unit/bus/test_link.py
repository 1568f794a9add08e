"""The connection's own writes: whatever the socket says, callers get one of hivefold's errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import urlparse

import pytest
import uvloop
from nats.aio.client import Client

from hivefold.bus.link import Link
from hivefold.bus.port import Message
from hivefold.bus.signals import NatsSignals
from hivefold.bus.transport import Transport
from hivefold.errors import BrokerUnavailableError


class ClosedTransport:
    """A socket that was closed a moment ago."""

    def write(self, _data: bytes) -> None:
        raise ConnectionResetError("the handler is closed")

    def writelines(self, _data: list[bytes]) -> None:
        raise ConnectionResetError("the handler is closed")

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


async def test_a_signal_to_a_socket_that_was_just_closed_is_lost_and_ends_nobody() -> None:
    """It is written at once, past nats-py's own way. Found by the soak: two nodes died of it in 1,001 kills."""

    class JustClosed(Transport):
        def write(self, payload: bytes) -> None:
            raise ConnectionResetError("the handler is closed")

    link: Any = Link()
    link._status = Client.CONNECTED
    link._transport = JustClosed()
    with pytest.raises(BrokerUnavailableError, match="wait for the reconnect"):
        link.write_now(b"PUB a 0\r\n\r\n")
    NatsSignals(link).publish(Message("fleet.pulse", b"x"))


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


@pytest.mark.parametrize(
    "write", [lambda transport: transport.write(b"x"), lambda transport: transport.writelines([b"x"])]
)
def test_uvloops_word_for_a_closed_socket_is_one_that_nats_py_knows(write: Callable[[Any], None]) -> None:
    """With the other one a connection that was lost while it was made was never made again. Found by the soak."""

    async def write_to_a_closed_socket() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        transport: Any = Transport()
        await transport.connect(urlparse(f"nats://{host}:{port}"), 1024, 5)
        transport._io_writer.transport.abort()
        await asyncio.sleep(0.01)
        try:
            write(transport)
        finally:
            server.close()

    with pytest.raises(ConnectionResetError):
        uvloop.run(write_to_a_closed_socket())


def test_what_is_written_at_once_keeps_its_place() -> None:
    """Behind what uvloop still holds back, ahead of what comes later, and in one piece with the rest."""

    async def heard() -> bytes:
        come: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            come.set_result(await reader.read())
            writer.close()

        server = await asyncio.start_server(listen, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        transport: Any = Transport()
        await transport.connect(urlparse(f"nats://{host}:{port}"), 1024, 5)
        transport.write_now(b"1")
        transport.write(b"2")
        transport.write_now(b"3")
        await asyncio.sleep(0.01)
        transport.write_now(large := bytes(8 * 1024 * 1024))
        transport.write_now(b"4")
        transport.write(b"5")
        transport.close()
        received = await come
        server.close()
        assert received[3:-2] == large
        return received.replace(large, b"-")

    assert uvloop.run(heard()) == b"123-45"

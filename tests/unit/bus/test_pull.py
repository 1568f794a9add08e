"""Pulling from a consumer over a connection that breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import cast

import pytest

from hivefold.bus.link import Handler, Link
from hivefold.bus.pull import Puller
from hivefold.limits import PULL_BYTES


class BreakingLink:
    """What a Puller uses of a link: who listens where, what was asked, and reconnects at will."""

    is_closed = False

    def __init__(self) -> None:
        self.handlers: dict[int, tuple[str, Handler]] = {}
        self.asked: list[bytes] = []
        self._numbers = count(1)
        self._listeners: list[Callable[[], None]] = []

    def on_reconnect(self, listener: Callable[[], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def until_up(self) -> None:
        """It is."""

    def new_inbox(self) -> str:
        return f"inbox-{next(self._numbers)}"

    async def listen(self, subject: str, handler: Handler) -> int:
        number = next(self._numbers)
        self.handlers[number] = (subject.removesuffix("*"), handler)
        return number

    async def unlisten(self, number: int) -> None:
        self.handlers.pop(number, None)

    def write(self, command: bytes) -> None:
        self.asked.append(command.split()[2])

    def reconnect(self) -> None:
        for listener in self._listeners:
            listener()

    def deliver(self, to: bytes, data: bytes) -> None:
        """The server answers a request; where nobody listens any more that is lost."""
        for prefix, handler in self.handlers.values():
            if to.startswith(prefix.encode()):
                handler(to, b"ack", data, None)

    def end(self, request: bytes) -> None:
        """The server has sent as many bytes as a request allows."""
        for prefix, handler in self.handlers.values():
            if request.startswith(prefix.encode()):
                handler(request, b"", b"", b"NATS/1.0 409 Message Size Exceeds MaxBytes\r\n\r\n")


async def test_what_an_old_request_brings_is_handed_over_however_often_the_connection_broke(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A request lives on at the server; lost, its message would come again only after WORK_ACK_WAIT_S."""
    monkeypatch.setattr("hivefold.bus.pull.BROKER_RETRY_MS", 0)
    link = BreakingLink()
    puller = Puller(cast(Link, link), "STREAM", "node")
    taking = asyncio.ensure_future(puller.take())
    async with asyncio.timeout(5):
        for breaks in range(4):
            while len(link.asked) == breaks:
                await asyncio.sleep(0)
            if breaks < 3:
                link.reconnect()
        link.deliver(link.asked[0], b"work")
        taken = await taking
    assert [message.data for message in taken] == [b"work"]
    await puller.close()


async def test_no_more_is_asked_for_while_much_is_held() -> None:
    """Messages may be large: who takes them slowly holds PULL_BYTES or so of them, not PULL_MESSAGES."""
    link, piece = BreakingLink(), bytes(PULL_BYTES // 8)
    puller = Puller(cast(Link, link), "STREAM", "node")
    taking = asyncio.ensure_future(puller.take())
    async with asyncio.timeout(5):
        while not link.asked:
            await asyncio.sleep(0)
        link.deliver(link.asked[0], piece)
        assert len(await taking) == 1
        for _ in range(7):
            link.deliver(link.asked[0], piece)
        link.end(link.asked[0])
        assert len(link.asked) == 1

        assert len(await puller.take()) == 7
        assert len(link.asked) == 2
    await puller.close()

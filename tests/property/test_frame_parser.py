"""Laws of the frame parser: what arrives does not depend on how the bytes were cut."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from hivefold.bus.parser import FrameParser

_Message = tuple[bytes, bytes, bytes, bytes | None]
_names = st.sampled_from([b"a", b"results.n1.j.1.1", b"_INBOX.x.1"])
_headers = st.sampled_from([None, b"NATS/1.0\r\nA: b\r\n\r\n", b"NATS/1.0 404 No Messages\r\n\r\n"])


@st.composite
def _messages(draw: st.DrawFn) -> list[_Message]:
    one = st.tuples(_names, st.one_of(st.just(b""), _names), st.binary(max_size=40), _headers)
    return draw(st.lists(one, max_size=8))


def _written(message: _Message) -> bytes:
    subject, reply, data, headers = message
    answer = reply + b" " if reply else b""
    if headers is None:
        return b"MSG %b 7 %b%d\r\n%b\r\n" % (subject, answer, len(data), data)
    return b"HMSG %b 7 %b%d %d\r\n%b%b\r\n" % (
        subject,
        answer,
        len(headers),
        len(headers) + len(data),
        headers,
        data,
    )


@given(_messages(), st.data())
def test_messages_arrive_whole_however_the_bytes_were_cut(messages: list[_Message], draws: st.DataObject) -> None:
    """Each once, in order, with its reply, data and headers; pings between them go to nats-py."""
    stream = b"".join(_written(message) + b"PONG\r\n" for message in messages)
    cuts = sorted(draws.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    arrived: list[_Message] = []

    async def parse() -> None:
        parser = FrameParser(Client(), {7: lambda *message: arrived.append(message)})
        for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            await parser.parse(stream[start:stop])

    asyncio.run(parse())
    assert arrived == messages

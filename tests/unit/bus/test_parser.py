"""Frames come out whole and in order, however the network cuts the bytes."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.errors import ProtocolError

from hivefold.bus.parser import FrameParser

ROUTED = 7
OTHER = 8


class Heard:
    """The client as the parser sees it: notes what it is told."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.said.append((sid, subject, reply, data, headers))

    async def _process_ping(self) -> None:
        self.said.append("ping")

    async def _process_pong(self) -> None:
        self.said.append("pong")

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.said.append(info)

    async def _process_err(self, message: str) -> None:
        self.said.append(message)

    def take(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.said.append((ROUTED, subject, reply, data, headers))


def parser_for(heard: Heard) -> FrameParser:
    return FrameParser(cast(Client, heard), {ROUTED: heard.take})


payloads = st.binary(max_size=300) | st.just(b"PING\r\n") | st.just(b"\r\n\r\nHMSG x 7 5 5\r\n")
subjects = st.sampled_from([b"a", b"log.job.x", b"_INBOX.1.2"])


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, Any]:
    """One frame and what is to be heard of it."""
    sid = draw(st.sampled_from([ROUTED, OTHER]))
    subject, data = draw(subjects), draw(payloads)
    reply = draw(st.sampled_from([b"", b"answer.here"]))
    middle = b"%b %d%b" % (subject, sid, b" " + reply if reply else b"")
    if draw(st.booleans()):
        headers = b"NATS/1.0\r\nName: %b\r\n\r\n" % draw(st.sampled_from([b"", b"value", b"x" * 200]))
        frame = b"HMSG %b %d %d\r\n%b%b\r\n" % (middle, len(headers), len(headers) + len(data), headers, data)
        return frame, (sid, subject, reply, data, headers)
    return b"MSG %b %d\r\n%b\r\n" % (middle, len(data), data), (sid, subject, reply, data, None)


others = st.sampled_from(
    [
        (b"PING\r\n", "ping"),
        (b"PONG\r\n", "pong"),
        (b'INFO {"version":"2.15.1"} \r\n', {"version": "2.15.1"}),
        (b"-ERR 'Permissions Violation'\r\n", "'permissions violation'"),
        (b"+OK\r\n", None),
    ]
)


@given(frames=st.lists(messages() | others, max_size=12), seed=st.randoms(use_true_random=False))
def test_any_cut_of_the_bytes_gives_the_same_messages(frames: list[tuple[bytes, Any]], seed: Any) -> None:
    """Handlers and the client hear every frame once, in order, with its exact bytes; some pieces take the short way."""
    heard = Heard()
    parser = parser_for(heard)
    stream = b"".join(frame for frame, _ in frames)
    cuts = sorted(seed.randrange(len(stream) + 1) for _ in range(seed.randrange(10))) if stream else []

    async def feed() -> None:
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            piece = stream[start:end]
            rest = parser.take(piece) if seed.random() < 0.5 else piece
            if rest:
                await parser.parse(rest)

    asyncio.run(feed())

    assert heard.said == [what for _, what in frames if what is not None]


async def test_a_reconnect_forgets_the_half_of_a_frame() -> None:
    """What came before the connection broke is not glued to what comes after."""
    heard = Heard()
    parser = parser_for(heard)

    await parser.parse(b"MSG a 7 100\r\nhalf")
    parser.reset()
    await parser.parse(b"PING\r\n")

    assert heard.said == ["ping"]


@pytest.mark.parametrize("line", [b"MSG a\r\n", b"MSG a x 5\r\n", b"HMSG a 7 -1\r\n", b"MSG a 7 many\r\n", b"WHAT\r\n"])
async def test_what_is_not_the_protocol_is_an_error(line: bytes) -> None:
    """nats-py then drops the connection and makes a new one."""
    with pytest.raises(ProtocolError):
        await parser_for(Heard()).parse(line)

"""Commands and headers as bytes."""

from __future__ import annotations

import pytest

from hivefold.bus import frames
from hivefold.errors import InvalidRequestError


def test_a_message_is_written_as_the_protocol_says() -> None:
    """With and without reply and headers; sizes are those of the bytes."""
    assert frames.publish(b"a.b", b"data") == b"PUB a.b  4\r\ndata\r\n"
    assert frames.publish(b"a.b", b"", reply=b"r") == b"PUB a.b r 0\r\n\r\n"
    block = frames.header_block({"K": "ü"})
    assert block == "NATS/1.0\r\nK: ü\r\n\r\n".encode()
    assert frames.publish(b"a", b"xy", reply=b"r", headers=block) == b"HPUB a r 19 21\r\n" + block + b"xy\r\n"


@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPUB b 0\r\n\r\n", "a\tb", "a\x00"])
def test_a_subject_cannot_break_the_protocol(subject: str) -> None:
    """Blanks and control characters would begin another command."""
    with pytest.raises(InvalidRequestError):
        frames.subject_bytes(subject)


def test_a_header_cannot_begin_another() -> None:
    """Line breaks in values become blanks."""
    assert frames.parse_headers(frames.header_block({"a": "1\r\nb: 2"})) == {"a": "1  b: 2"}


def test_header_names_are_read_in_lower_case() -> None:
    """Servers and clients in other languages change the case; lines that are none are passed over."""
    assert frames.parse_headers(b"NATS/1.0\r\nTraceParent:00-1\r\nX: a:b \r\nodd\r\n\r\n") == {
        "traceparent": "00-1",
        "x": "a:b",
    }
    assert frames.parse_headers(None) == {}


def test_a_status_is_told_from_headers() -> None:
    """In-line status of the server, with or without text and headers."""
    assert frames.status_of(b"NATS/1.0 404 No Messages\r\n\r\n") == (404, "No Messages")
    assert frames.status_of(b"NATS/1.0 100\r\nNats-Last-Consumer: 1\r\n\r\n") == (100, "")
    assert frames.status_of(b"NATS/1.0\r\nA: 503\r\n\r\n") == (0, "")
    assert frames.status_of(None) == (0, "")

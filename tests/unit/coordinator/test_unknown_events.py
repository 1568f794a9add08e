"""Events of a newer version: passed over where they say so, else a clear stop; never guessed at."""

from __future__ import annotations

import pytest

from coordinator.wire.events import event_from_proto
from hivefold.errors import EventUnknownError, Reason
from hivefold.v1 import event_pb2

NUMBER = 4000


def from_the_future(*, ignorable: bool) -> event_pb2.Event:
    """An event whose body is a field that no version has yet."""
    body = b"something new"
    tag = NUMBER << 3 | 2
    field = bytes([tag & 0x7F | 0x80, tag >> 7 & 0x7F | 0x80, tag >> 14, len(body)]) + body
    return event_pb2.Event.FromString(event_pb2.Event(ignorable=ignorable).SerializeToString() + field)


def test_an_unknown_event_stops_the_reader() -> None:
    """With the position, what it met and what to do: a guess would be another history."""
    with pytest.raises(EventUnknownError, match=rf"record 12 .*field {NUMBER}.*upgrade") as caught:
        event_from_proto(from_the_future(ignorable=False), 12)
    assert (caught.value.position, caught.value.reason) == (12, Reason.EVENT_UNKNOWN)


def test_an_unknown_event_that_may_be_passed_over_is() -> None:
    """Its writer said that nothing is decided differently without it."""
    assert event_from_proto(from_the_future(ignorable=True), 12) is None

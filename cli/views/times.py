"""Protobuf's times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cli import words
from hivefold.clock import SystemClock

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp


def seconds_since(moment: Timestamp) -> float:
    """Seconds from `moment` until now."""
    return SystemClock().now_us() / 1e6 - seconds_of(moment)


def seconds_of(moment: Timestamp) -> float:
    """`moment` in seconds of Unix time."""
    return moment.seconds + moment.nanos / 1e9


def ago(moment: Timestamp) -> str:
    """How long `moment` is past; empty when it is not set."""
    return words.ago(seconds_since(moment)) if moment.seconds else ""


def exact(moment: Timestamp) -> str:
    """`moment` in UTC to the second, "2026-11-21 11:43:49Z"; empty when it is not set."""
    return moment.ToDatetime().strftime("%Y-%m-%d %H:%M:%SZ") if moment.seconds else ""


def clock_time(moment: Timestamp) -> str:
    """The time of the day in UTC to the millisecond."""
    return moment.ToDatetime().strftime("%H:%M:%S.%f")[:-3]


def stamp(time_us: int) -> str:
    """A time (Unix microseconds) in UTC to the millisecond: "2026-11-21 11:43:49.120"."""
    return _moment(time_us).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def iso(time_us: int) -> str:
    """The same for programs, to the microsecond: "2026-11-21T11:43:49.120000Z"."""
    return _moment(time_us).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _moment(time_us: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=time_us)

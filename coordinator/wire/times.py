"""Unix microseconds to and from protobuf's Timestamp and Duration; 0 is an unset field."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_MICROS = 1_000_000


def timestamp(time_us: int) -> Timestamp | None:
    """None for 0, so that the field stays unset."""
    return Timestamp(seconds=time_us // _MICROS, nanos=time_us % _MICROS * 1000) if time_us else None


def duration(span_us: int) -> Duration | None:
    """None for 0, so that the field stays unset."""
    return Duration(seconds=span_us // _MICROS, nanos=span_us % _MICROS * 1000) if span_us else None


def micros(value: Timestamp | Duration) -> int:
    """Microseconds of either; 0 for an unset field. Nanoseconds are cut off."""
    return value.seconds * _MICROS + value.nanos // 1000

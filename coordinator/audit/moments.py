"""Moments in a log, as people name them: a position, a time, or how long before its end."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias, assert_never

from coordinator.core.model import State
from coordinator.replay import Replayed, replay
from coordinator.wire.records import GENESIS_HASH
from coordinator.wire.times import micros
from hivefold.errors import InvalidRequestError, LogCorruptError
from hivefold.log.port import ReadableLog
from hivefold.v1.record_pb2 import Record

MOMENT_RULE: Final = (
    'a position (120), a time with its zone (2026-11-21T14:00:00Z), a span before the last record (5m), or "end"'
)
_SPAN: Final = re.compile(r"-?(?P<number>\d+(?:\.\d+)?)(?P<unit>ms|s|m|h|d)")
_UNIT_US: Final = {"ms": 1000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class AtRecord:
    """After the record at this position; 0 is before the first."""

    sequence: int


@dataclass(frozen=True, slots=True)
class AtTime:
    """After the last record that is not later than this (Unix microseconds)."""

    time_us: int


@dataclass(frozen=True, slots=True)
class BeforeEnd:
    """This long (microseconds) before the last record was written; 0 is the end."""

    span_us: int


Moment: TypeAlias = AtRecord | AtTime | BeforeEnd


def parse_moment(text: str) -> Moment:
    """A moment as MOMENT_RULE says. Raises InvalidRequestError."""
    if text == "end":
        return BeforeEnd(0)
    if text.isdecimal():
        return AtRecord(int(text))
    span = _SPAN.fullmatch(text)
    if span is not None:
        return BeforeEnd(int(float(span["number"]) * _UNIT_US[span["unit"]]))
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequestError(f"{text!r} is no moment: give {MOMENT_RULE}") from None
    if time.tzinfo is None:
        raise InvalidRequestError(f"{text!r} names no zone: write {text}Z for UTC, or an offset such as {text}+02:00")
    return AtTime((time - _EPOCH) // timedelta(microseconds=1))


async def position_of(log: ReadableLog, moment: Moment) -> int:
    """Position of the last record that belongs to the moment. Raises InvalidRequestError, LogCorruptError."""
    last = (await log.head()).sequence
    match moment:
        case AtRecord(sequence):
            if sequence > last:
                raise InvalidRequestError(f"the log ends at record {last}: there is no record {sequence} yet")
            return sequence
        case AtTime(time_us):
            return await _last_not_after(log, last, time_us)
        case BeforeEnd(0):
            return last
        case BeforeEnd(span_us):
            end_us = await _time_of(log, last) if last else 0
            return await _last_not_after(log, last, end_us - span_us)
        case _:
            assert_never(moment)


async def state_at(
    log: ReadableLog,
    position: int,
    *,
    start: Replayed | None = None,
    progress: Callable[[int], None] | None = None,
) -> Replayed:
    """The state after the record at `position`, folded from record 1 or from `start`. Raises LogCorruptError."""
    begin = start or Replayed(State(), GENESIS_HASH)
    if position == begin.state.sequence:
        return begin
    return await replay(log, up_to=position, start=start, progress=progress)


async def _last_not_after(log: ReadableLog, last: int, time_us: int) -> int:
    """Binary search: recorded time never goes back."""
    low, high = 0, last
    while low < high:
        middle = (low + high + 1) // 2
        if await _time_of(log, middle) <= time_us:
            low = middle
        else:
            high = middle - 1
    return low


async def _time_of(log: ReadableLog, position: int) -> int:
    """When a record was written (Unix microseconds)."""
    async for page in log.read(after=position - 1, up_to=position):
        return micros(Record.FromString(page[0].data).record_time)
    raise LogCorruptError(f"record {position} is missing from the log", position=position)

"""Moments of a log, by position, time, or span before its end."""

from __future__ import annotations

import pytest

from coordinator.audit.moments import AtRecord, AtTime, BeforeEnd, parse_moment, position_of, state_at
from coordinator.replay import Replayer
from coordinator.wire.records import decode_record
from hivefold.errors import InvalidRequestError
from hivefold.log.memory import MemoryEventLog
from tests.unit.log.logs import golden_records

RECORDS = golden_records()
TIMES = [decode_record(stored).time_us for stored in RECORDS]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("120", AtRecord(120)),
        ("end", BeforeEnd(0)),
        ("5m", BeforeEnd(300_000_000)),
        ("-1.5s", BeforeEnd(1_500_000)),
        ("2023-11-14T22:13:23Z", AtTime(1_700_000_003_000_000)),
        ("2023-11-15T00:13:23.25+02:00", AtTime(1_700_000_003_250_000)),
    ],
)
def test_a_moment_is_read(text: str, moment: object) -> None:
    """As docs/audit.md says."""
    assert parse_moment(text) == moment


@pytest.mark.parametrize("text", ["yesterday", "2023-11-14T22:13:23", "5 minutes", "", "-3"])
def test_what_could_mean_several_moments_is_refused(text: str) -> None:
    """A time without a zone is nobody's time; the message shows what to write."""
    with pytest.raises(InvalidRequestError, match="Z"):
        parse_moment(text)


async def test_a_time_belongs_to_the_last_record_not_after_it() -> None:
    """By binary search; times before the log and after it are its beginning and its end."""
    log = MemoryEventLog(list(RECORDS))

    for time_us in {TIMES[0] - 1, *TIMES, TIMES[5] + 1, TIMES[-1] + 1}:
        expected = sum(1 for other in TIMES if other <= time_us)
        assert await position_of(log, AtTime(time_us)) == expected
    assert await position_of(log, BeforeEnd(0)) == len(RECORDS)
    assert await position_of(log, BeforeEnd(TIMES[-1] - TIMES[9])) == sum(1 for t in TIMES if t <= TIMES[9])
    with pytest.raises(InvalidRequestError, match="ends at record"):
        await position_of(log, AtRecord(len(RECORDS) + 1))


async def test_an_empty_log_has_an_end() -> None:
    """Nothing was ever decided: position 0, the empty state."""
    log = MemoryEventLog()

    assert await position_of(log, BeforeEnd(1)) == 0
    assert (await state_at(log, 0)).state.sequence == 0


async def test_the_state_at_every_moment_is_the_fold_up_to_there() -> None:
    """Folding on from an earlier state gives the same as folding from the beginning."""
    log, replayer = MemoryEventLog(list(RECORDS)), Replayer()
    earlier = await state_at(log, 3)

    for stored in RECORDS:
        replayer.feed([stored])
        if stored.sequence >= 3:
            assert await state_at(log, stored.sequence, start=earlier) == replayer.result()

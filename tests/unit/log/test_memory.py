"""The faults that the log in memory can be told to meet; all else is shown by the conformance suite."""

from __future__ import annotations

import asyncio

import pytest

from hivefold.errors import (
    AppendUnresolvedError,
    BrokerUnavailableError,
    FencedError,
    HivefoldError,
    LogCorruptError,
    LogFullError,
)
from hivefold.log.memory import Fault, MemoryEventLog
from hivefold.log.port import TERM_SUBJECT, Entry, Head


async def begun() -> MemoryEventLog:
    log = MemoryEventLog()
    await log.append([Entry(TERM_SUBJECT, b"term")], expected_sequence=0, term_sequence=0)
    return log


async def append(log: MemoryEventLog, data: bytes, expected: int = 1) -> None:
    await log.append([Entry("log.job.j", data)], expected_sequence=expected, term_sequence=1)


@pytest.mark.parametrize(
    ("fault", "error", "stored"),
    [
        (Fault.LOST_ACK, AppendUnresolvedError, True),
        (Fault.LOST_REQUEST, AppendUnresolvedError, False),
        (Fault.REFUSED, BrokerUnavailableError, False),
        (Fault.FULL, LogFullError, False),
        (Fault.DEPOSED, FencedError, False),
    ],
)
async def test_a_fault_is_met_once(fault: Fault, error: type[HivefoldError], stored: bool) -> None:
    """Each fault ends one append as the real log would, with or without the record; the next one is sound."""
    log = await begun()
    log.inject(fault)

    with pytest.raises(error):
        await append(log, b"record")

    assert (b"record" in [record.data for record in log.store]) is stored
    if fault is not Fault.DEPOSED:
        await append(log, b"record")
        assert await log.head() == Head(2, 1)


async def test_a_deposed_leader_finds_a_newer_term() -> None:
    """After the fault the log holds another coordinator's term."""
    log = await begun()
    log.inject(Fault.DEPOSED)

    with pytest.raises(FencedError):
        await append(log, b"record")

    assert await log.head() == Head(2, 2)


async def test_a_gap_stops_the_reader() -> None:
    """A lost record ends the read with its position."""
    log = await begun()
    for number in range(1, 6):
        await append(log, b"%d" % number, number)
    log.lose(4)

    pages = log.read(after=0, up_to=6)

    assert [record.sequence for record in await anext(pages)] == [1, 2, 3]
    with pytest.raises(LogCorruptError) as caught:
        await anext(pages)
    assert caught.value.position == 4


async def test_a_held_log_answers_after_release() -> None:
    """What waits on a slow broker goes on when it answers."""
    log = await begun()
    log.hold()
    waiting = asyncio.ensure_future(append(log, b"record"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()

    log.release()
    await waiting

    assert await log.head() == Head(2, 1)

"""Recheck: every record is decided again, and what would come out otherwise is listed."""

from __future__ import annotations

from dataclasses import replace

from coordinator.audit.recheck import recheck
from coordinator.core import events as ev
from coordinator.core.commands import CancelJob, Command
from coordinator.core.model import Rejected
from coordinator.wire.records import GENESIS_HASH, NewRecord, decode_record, record_hash
from hivefold.errors import Reason
from hivefold.ids import JobId, NodeId
from hivefold.log.memory import MemoryEventLog
from hivefold.log.port import Stored
from tests.unit.log.logs import golden_records

RECORDS = golden_records()


def forged(position: int, events: tuple[ev.Event, ...]) -> list[Stored]:
    """The log with other events in one record, chained anew."""
    log, previous = [], GENESIS_HASH
    for stored in RECORDS:
        record = decode_record(stored)
        decided = events if record.sequence == position else record.events
        entry = NewRecord(record.sequence, record.term, bytes(16), record.command, decided, previous).entry()
        previous = record_hash(record.sequence, entry.subject, entry.data)
        log.append(Stored(record.sequence, entry.subject, entry.data))
    return log


async def test_the_log_of_a_release_is_decided_the_same() -> None:
    """The code of today agrees with every decision of the golden log."""
    found = await recheck(MemoryEventLog(list(RECORDS)), up_to=len(RECORDS), limit=9)

    assert (found.records, found.difference_count, found.code_versions) == (len(RECORDS), 0, ("0.1.0",))


async def test_a_made_up_decision_is_found() -> None:
    """A task that was given to a node which the decision would not have chosen."""
    record = decode_record(RECORDS[10])
    (index, assigned), *_ = [(i, e) for i, e in enumerate(record.events) if isinstance(e, ev.TasksAssigned)]
    events = tuple(replace(assigned, node_id=NodeId("n3")) if i == index else e for i, e in enumerate(record.events))

    found = await recheck(MemoryEventLog(forged(11, events)), up_to=len(RECORDS), limit=1)

    assert found.difference_count >= 1
    (first,) = found.differences
    assert (first.sequence, first.first, first.code_version) == (11, index, "0.1.0")
    assert first.recorded == events
    assert first.decided == record.events


def extended(count: int) -> list[Stored]:
    """The log with cancels of jobs that never were, recorded as if they had been accepted."""
    log, head = list(RECORDS), decode_record(RECORDS[-1])
    previous = head.hash
    for sequence in range(len(RECORDS) + 1, len(RECORDS) + count + 1):
        command = Command(head.time_us, CancelJob(JobId("nobody")))
        event = ev.JobCancelled(JobId("nobody"), "")
        entry = NewRecord(sequence, head.term, bytes(16), command, (event,), previous).entry()
        previous = record_hash(sequence, entry.subject, entry.data)
        log.append(Stored(sequence, entry.subject, entry.data))
    return log


async def test_a_command_that_would_be_refused_is_found() -> None:
    """The refusal is given with its reason."""
    found = await recheck(MemoryEventLog(extended(1)), up_to=len(RECORDS) + 1, limit=9)

    (difference,) = found.differences
    assert (difference.sequence, difference.cause, difference.first) == (len(RECORDS) + 1, "CancelJob", 0)
    assert isinstance(difference.decided, Rejected)
    assert difference.decided.reason is Reason.JOB_NOT_FOUND


async def test_only_so_many_differences_are_kept() -> None:
    """All are counted."""
    found = await recheck(MemoryEventLog(extended(5)), up_to=len(RECORDS) + 5, limit=2)

    assert (len(found.differences), found.difference_count) == (2, 5)

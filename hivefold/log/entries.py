"""What may be appended in one call, checked alike by every adapter. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hivefold.limits import APPEND_BATCH_BYTES, APPEND_BATCH_RECORDS, RECORD_BYTES
from hivefold.log.port import CLOSE_SUBJECT, TERM_SUBJECT, Entry


def check_entries(entries: Sequence[Entry]) -> None:
    """Raises ValueError, a defect of the caller, when `entries` break the contract of EventLog.append."""
    if not 1 <= len(entries) <= APPEND_BATCH_RECORDS:
        raise ValueError(f"an append takes 1 to {APPEND_BATCH_RECORDS} records, not {len(entries)}")
    if len(entries) > 1 and any(entry.subject == TERM_SUBJECT for entry in entries):
        raise ValueError("a term record is appended alone: the fence of the others could not name it yet")
    if any(entry.subject == CLOSE_SUBJECT for entry in entries[:-1]):
        raise ValueError("the record that closes a segment is the last of its append")
    for entry in entries:
        if not entry.subject.startswith("log."):
            raise ValueError(f"subject {entry.subject!r} is not below 'log.'")
        if not 0 < len(entry.data) <= RECORD_BYTES:
            raise ValueError(f"a record has 1 to {RECORD_BYTES} bytes, not {len(entry.data)}")
    if sum(len(entry.data) for entry in entries) > APPEND_BATCH_BYTES:
        raise ValueError(f"an append takes at most {APPEND_BATCH_BYTES} bytes; split it")


def check_follows(closed: bool, entries: Sequence[Entry]) -> None:
    """Raises ValueError, a defect of the caller, when `entries` would follow the record that closed a segment."""
    if closed and entries[0].subject != TERM_SUBJECT:
        raise ValueError("the segment is closed: a record under log.term opens the next one")

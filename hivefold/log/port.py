"""The event log as the coordinator sees it: bytes in, bytes out, one writer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

KEY_SUBJECT = "log.key"
"""Only records under this subject change the signing key: a verifier need not look into others."""
TERM_SUBJECT = "log.term"
"""Records that start a term or a segment are stored here; every append is fenced against the last of them."""
CLOSE_SUBJECT = "log.segment"
"""A record here is the last of its segment: after it only a record under TERM_SUBJECT may come, in the next one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record to append: the subject it is stored under (`log.…`) and its bytes.

    The bytes MUST be unique in the log (records carry a random id): an uncertain append is
    resolved by comparing what is stored at its position.
    """

    subject: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it is stored. `sequence` counts from 1 without gaps."""

    sequence: int
    subject: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the log: sequence of the last record (0 when empty) and of the last on TERM_SUBJECT."""

    sequence: int
    term_sequence: int


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """The segment that takes records: its number from 1, and whether it has reached its bounds and should be closed."""

    number: int
    full: bool


class ReadableLog(Protocol):
    """The reading side of a log: of the broker's, or of a file that holds a part of one."""

    async def head(self) -> Head:
        """The end of the log, read from the broker's leader (never a stale replica).

        Raises BrokerUnavailableError.
        """
        ...

    def read(self, *, after: int, up_to: int) -> AsyncIterator[Sequence[Stored]]:
        """Yields pages of the records after `after` up to and including `up_to`, in order.

        Ends exactly at `up_to`. Raises LogCorruptError with the position of the first record that
        is missing or out of order, BrokerUnavailableError when the broker stays silent. Never
        silently shorter.
        """
        ...

    async def close(self) -> None:
        """Releases the connection; pending calls fail."""
        ...


class EventLog(ReadableLog, Protocol):
    """An append-only, durable, fenced log. Sequences are contiguous from 1."""

    @property
    def open_segment(self) -> OpenSegment:
        """The segment to which appends go, as this handle knows it."""
        ...

    async def append(self, entries: Sequence[Entry], *, expected_sequence: int, term_sequence: int) -> None:
        """Stores all entries, durably and in order, right after `expected_sequence`.

        At most APPEND_BATCH_RECORDS entries; MUST NOT be called while another append is in flight.
        `term_sequence` is the sequence of the caller's own term record (or, to start a term, of the
        previous one; 0 for the first): the broker refuses when a later term record exists.

        After a record under CLOSE_SUBJECT the next one MUST be under TERM_SUBJECT; with it the log goes on
        in a new segment: the closed one is sealed, the next is made, whoever closed it.

        An answer that does not come is resolved by reading back, never by a blind retry. Raises
        LogFullError (nothing stored), BrokerUnavailableError (nothing stored, the same call may be
        repeated), FencedError (another leads) or AppendUnresolvedError (unknown). After the last two
        the first entries may be stored: stop, a replay tells.
        """
        ...

    async def find_first(self, subject: str) -> int:
        """Position of the first record stored under a subject (one, without wildcards); 0 where there is none.

        Raises BrokerUnavailableError.
        """
        ...

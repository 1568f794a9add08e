"""Decisions upon a tentative state, made into records that go to the log together."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.core.commands import Command, CommandBody
from coordinator.core.decide import decide
from coordinator.core.events import Event
from coordinator.core.model import Rejected, State
from coordinator.followers import Committed
from coordinator.wire.records import NewRecord, record_hash
from hivefold import limits
from hivefold.entropy import Entropy
from hivefold.errors import LimitExceededError
from hivefold.log.port import Entry


@dataclass(frozen=True, slots=True)
class Accepted:
    """A decided command: the record's position (0 when there was nothing to record), its events, the state."""

    sequence: int
    events: tuple[Event, ...]
    state: State


class RecordTooLargeError(LimitExceededError):
    """The decision does not fit into one record."""


class Batch:
    """Decisions upon a tentative state, not yet durable."""

    def __init__(self, state: State, head_hash: bytes, time_us: int, entropy: Entropy) -> None:
        # Recorded time never goes back, whatever the machine's clock does.
        self.time_us = max(time_us, state.time_us)
        self.state = state
        self.head_hash = head_hash
        self.records: list[Committed] = []
        self.entries: list[Entry] = []
        self.size = 0
        self._entropy = entropy

    @property
    def full(self) -> bool:
        """Whether no more fits into one atomic append."""
        return len(self.records) >= limits.APPEND_BATCH_RECORDS - 2 or self.size >= limits.APPEND_BATCH_BYTES

    def add(self, body: CommandBody, traceparent: str) -> Accepted | Rejected | LimitExceededError:
        """Decides one command upon the tentative state."""
        command = Command(self.time_us, body)
        decision = decide(self.state, command)
        if isinstance(decision, Rejected):
            return decision
        if not decision.events:
            return Accepted(0, (), decision.state)
        sequence = decision.state.sequence
        record = NewRecord(
            sequence=sequence,
            term=decision.state.term,
            record_id=self._entropy.draw(16),
            command=command,
            events=decision.events,
            previous_hash=self.head_hash,
            traceparent=traceparent,
        )
        entry = record.entry()
        if len(entry.data) > limits.RECORD_BYTES:
            return RecordTooLargeError(
                f"the decision takes {len(entry.data)} bytes, a record at most {limits.RECORD_BYTES}: "
                "ask for less at once",
                metadata={"limit": str(limits.RECORD_BYTES), "bytes": str(len(entry.data))},
            )
        self.state = decision.state
        self.head_hash = record_hash(sequence, entry.subject, entry.data)
        self.size += len(entry.data)
        self.entries.append(entry)
        state = decision.state
        self.records.append(
            Committed(sequence, state.term, self.time_us, decision.events, traceparent, state, self.head_hash)
        )
        return Accepted(sequence, decision.events, decision.state)

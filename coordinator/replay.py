"""Rebuilds the state from the log. Has no effects."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from coordinator.core.digest import state_digest
from coordinator.core.evolve import evolve_all
from coordinator.core.invariants import violations
from coordinator.core.model import State
from coordinator.wire.records import GENESIS_HASH, LogRecord, decode_record
from hivefold.errors import LogCorruptError
from hivefold.ids import Digest
from hivefold.log.port import ReadableLog, Stored
from hivefold.proof.merkle import EMPTY, CompactRange, RangeBuilder


@dataclass(frozen=True, slots=True)
class Replayed:
    """The fold of the log up to `state.sequence`, and the hash of its last record."""

    state: State
    head_hash: bytes
    tree: CompactRange = EMPTY
    """The compact range over the hashes of all records up to there."""
    folded_bytes: int = field(default=0, compare=False)
    """Bytes of the records that were folded to come here, from record 1 or a snapshot on."""

    def digest(self) -> Digest:
        """The digest of the state."""
        return state_digest(self.state)


NOTHING: Final = Replayed(State(), GENESIS_HASH)
"""The fold of an empty log."""


class Replayer:
    """Folds records one page after another, checking that each follows from the one before."""

    def __init__(self, start: Replayed | None = None) -> None:
        self._state = start.state if start else State()
        self._hash = start.head_hash if start else GENESIS_HASH
        self._tree = RangeBuilder(start.tree if start else EMPTY)
        self._bytes = start.folded_bytes if start else 0

    def feed(self, page: Sequence[Stored]) -> None:
        """Folds a page. Raises LogCorruptError with the position of the first record that does not fit."""
        state, hashes = self._state, list[bytes]()
        for stored in page:
            state = self._fold(state, stored)[0]
            hashes.append(self._hash)
        self._state = state
        self._tree.extend(hashes)

    def step(self, stored: Stored) -> tuple[LogRecord, State]:
        """Folds one record; gives it with the state after it. Raises LogCorruptError."""
        self._state, record = self._fold(self._state, stored)
        self._tree.add(record.hash)
        return record, self._state

    def _fold(self, state: State, stored: Stored) -> tuple[State, LogRecord]:
        position = state.sequence + 1
        if stored.sequence != position:
            raise LogCorruptError(
                f"record {position} is missing: the log goes on with {stored.sequence}", position=position
            )
        record = decode_record(stored)
        if record.previous_hash != self._hash:
            raise LogCorruptError(
                f"record {position} does not follow from record {position - 1}: one of them was altered",
                position=position,
            )
        self._hash = record.hash
        self._bytes += len(stored.data)
        state = evolve_all(state, position, record.time_us, record.events)
        if record.term != state.term:
            raise LogCorruptError(
                f"record {position} carries term {record.term} in term {state.term}", position=position
            )
        return state, record

    def result(self) -> Replayed:
        """The fold so far. Raises LogCorruptError when it breaks an invariant."""
        broken = violations(self._state)
        if broken:
            raise LogCorruptError(
                f"the state at record {self._state.sequence} is impossible: {broken[0]}", position=self._state.sequence
            )
        return self.folded()

    def folded(self) -> Replayed:
        """The fold so far, taken at its word."""
        return Replayed(self._state, self._hash, self._tree.range(), self._bytes)


async def replay(
    log: ReadableLog, *, up_to: int, start: Replayed | None = None, progress: Callable[[int], None] | None = None
) -> Replayed:
    """Folds the log from record 1 (or from after `start`) up to and including `up_to`.

    `progress` is called with the position after each page. Raises LogCorruptError, BrokerUnavailableError.
    """
    replayer = Replayer(start)
    with collector_paused():
        async for page in log.read(after=start.state.sequence if start else 0, up_to=up_to):
            replayer.feed(page)
            if progress is not None:
                progress(page[-1].sequence)
    return replayer.result()


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pauses the cycle collector: the state has no cycles, and looking for them takes four fifths of a replay."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

"""Decides every record again: from the state before it and its recorded cause, with the code of today."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coordinator.core.decide import decide
from coordinator.core.events import Event, TermStarted
from coordinator.core.model import Rejected, State
from coordinator.replay import Replayer, collector_paused
from coordinator.wire.records import LogRecord
from hivefold.log.port import ReadableLog


@dataclass(frozen=True, slots=True)
class Difference:
    """A record that would be decided otherwise today.

    `code_version` is that of the term that wrote it. `decided` is what today's code decides: other events, none,
    or a refusal.
    """

    sequence: int
    term: int
    time_us: int
    code_version: str
    cause: str
    recorded: tuple[Event, ...]
    decided: tuple[Event, ...] | Rejected

    @property
    def first(self) -> int:
        """Index of the first event that differs; the length of the shorter list where one goes on."""
        decided = () if isinstance(self.decided, Rejected) else self.decided
        pairs = zip(self.recorded, decided, strict=False)
        shorter = min(len(self.recorded), len(decided))
        return next((index for index, (old, new) in enumerate(pairs) if old != new), shorter)


@dataclass(frozen=True, slots=True)
class Rechecked:
    """What came out: the first differences (at most the limit that was given), and how many there are in all."""

    records: int
    difference_count: int
    differences: tuple[Difference, ...]
    code_versions: tuple[str, ...]
    """Versions that wrote the log, in order."""


class Rechecker:
    """Rechecks records one after another, from record 1 on. What was recorded stays what happened."""

    def __init__(self, limit: int) -> None:
        self._state = State()
        self._limit = limit
        self._found: list[Difference] = []
        self._count = 0
        self._version = ""
        self._versions: list[str] = []

    def take(self, record: LogRecord, after: State) -> None:
        """Rechecks one record; `after` is the state that its recorded events lead to."""
        before, self._state = self._state, after
        for event in record.events:
            if isinstance(event, TermStarted):
                self._begin_term(event.code_version)
        answer = decide(before, record.command)
        decided = answer if isinstance(answer, Rejected) else answer.events
        if decided == record.events:
            return
        self._count += 1
        if len(self._found) < self._limit:
            cause = type(record.command.body).__name__
            self._found.append(
                Difference(record.sequence, record.term, record.time_us, self._version, cause, record.events, decided)
            )

    def result(self) -> Rechecked:
        """What came out so far."""
        return Rechecked(self._state.sequence, self._count, tuple(self._found), tuple(self._versions))

    def _begin_term(self, version: str) -> None:
        self._version = version
        if version not in self._versions:
            self._versions.append(version)


async def recheck(
    log: ReadableLog, *, up_to: int, limit: int, progress: Callable[[int], None] | None = None
) -> Rechecked:
    """Rechecks the log from record 1 up to `up_to`, verifying the chain on the way.

    Keeps at most `limit` differences. Raises LogCorruptError, BrokerUnavailableError.
    """
    replayer, rechecker = Replayer(), Rechecker(limit)
    with collector_paused():
        async for page in log.read(after=0, up_to=up_to):
            for stored in page:
                rechecker.take(*replayer.step(stored))
            if progress is not None:
                progress(page[-1].sequence)
    return rechecker.result()

"""A story: what happened to one subject, line by line, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from coordinator.audit.subjects import Kind
from coordinator.core.events import Event
from hivefold.ids import NodeId


class Tone(StrEnum):
    """How a line is meant."""

    PLAIN = "plain"
    GOOD = "good"
    BAD = "bad"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened: which record decided it, upon what, and why it came out so.

    `event` is the fact itself; None where the line sums several up.
    """

    sequence: int
    time_us: int
    term: int
    cause: str
    title: str
    text: str
    details: tuple[str, ...] = ()
    tone: Tone = Tone.PLAIN
    event: Event | None = None


@dataclass(slots=True)
class Work:
    """What one node did for a subject."""

    assigned: int = 0
    succeeded: int = 0
    failed: int = 0
    lost: int = 0
    row_count: int = 0
    busy_us: int = 0
    longest_us: int = 0

    def finish(self, durations_us: tuple[int, ...], row_count: int) -> None:
        """Some attempts succeeded."""
        self.succeeded += len(durations_us)
        self.row_count += row_count
        self.busy_us += sum(durations_us)
        self.longest_us = max(self.longest_us, *durations_us, 0)


@dataclass(frozen=True, slots=True)
class Story:
    """All that a log says of one subject. `omitted` lines after the first half of `lines` were left out."""

    kind: Kind
    subject: str
    facts: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]
    omitted: int
    work: tuple[tuple[str, Work], ...]
    """By node; for a node by job."""


@dataclass(slots=True)
class Lines:
    """Collects lines: the first and the last, at most `limit` in all."""

    limit: int
    _first: list[Line] = field(default_factory=list)
    _last: deque[Line] = field(default_factory=deque)
    omitted: int = 0

    def add(self, line: Line) -> None:
        """The next line."""
        if len(self._first) < (self.limit + 1) // 2:
            self._first.append(line)
            return
        self._last.append(line)
        if len(self._first) + len(self._last) > self.limit:
            self._last.popleft()
            self.omitted += 1

    def __iter__(self) -> Iterator[Line]:
        yield from self._first
        yield from self._last

    def __len__(self) -> int:
        return len(self._first) + len(self._last)


@dataclass(slots=True)
class Shares:
    """Work by node (or by job), for at most `limit` of them; those that came later are counted together."""

    limit: int
    _by_name: dict[str, Work] = field(default_factory=dict)

    def of(self, name: NodeId | str) -> Work:
        """The share of one."""
        known = self._by_name.get(name)
        if known is None:
            key = name if len(self._by_name) < self.limit else "(others)"
            known = self._by_name.setdefault(key, Work())
        return known

    def sorted(self) -> tuple[tuple[str, Work], ...]:
        """By name."""
        return tuple(sorted(self._by_name.items()))

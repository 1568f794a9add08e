"""A record as tellers hear it."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.audit.story import Line, Tone
from coordinator.core.events import Event


@dataclass(frozen=True, slots=True)
class Heard:
    """A record's position, term, time (Unix microseconds), cause in words, and events."""

    sequence: int
    term: int
    time_us: int
    cause: str
    events: tuple[Event, ...]

    def line(
        self,
        title: str,
        text: str,
        event: Event | None = None,
        *,
        details: tuple[str, ...] = (),
        tone: Tone = Tone.PLAIN,
    ) -> Line:
        """A line of a story that this record is about."""
        return Line(self.sequence, self.time_us, self.term, self.cause, title, text, details, tone, event)

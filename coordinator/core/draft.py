"""A decision in the making: the events so far and the state they lead to. Local to one decide call."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.core.events import Event
from coordinator.core.evolve import begin_record, evolve
from coordinator.core.model import State


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, and the fold of it over the state before. No events: nothing to record."""

    events: tuple[Event, ...]
    state: State


class Draft:
    """Collects events; each is folded at once, so what follows decides upon what came before."""

    __slots__ = ("_before", "_events", "state")

    def __init__(self, state: State, time_us: int) -> None:
        self._before = state
        self._events: list[Event] = []
        self.state = begin_record(state, state.sequence + 1, time_us)

    def emit(self, event: Event) -> None:
        """Adds one event."""
        self._events.append(event)
        self.state = evolve(self.state, event)

    @property
    def changed(self) -> bool:
        """Whether anything was decided yet."""
        return bool(self._events)

    def decision(self) -> Decision:
        """The finished decision."""
        if not self._events:
            return Decision((), self._before)
        return Decision(tuple(self._events), self.state)

"""Probe tasks: they do nothing, and cost what the way through an actor costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunProbes:
    """Run `count` probe tasks."""

    count: int


@dataclass(frozen=True, slots=True)
class ProbesDone:
    """They ran."""


class ProbeBehavior:
    """Runs probe tasks. A task that sleeps does so before it comes here: sleeping needs no thread."""

    def start(self) -> None:
        """Nothing."""

    def receive(self, message: RunProbes) -> ProbesDone:
        """Runs them one after the other."""
        for _ in range(message.count):
            pass
        return ProbesDone()

    def stop(self) -> None:
        """Nothing."""

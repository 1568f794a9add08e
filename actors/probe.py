"""Probe tasks: they do nothing, and cost what the way through an actor costs."""

from __future__ import annotations

from dataclasses import dataclass

from hivefold.clock import stopwatch_ns


@dataclass(frozen=True, slots=True)
class RunProbes:
    """Run `count` probe tasks."""

    count: int


@dataclass(frozen=True, slots=True)
class ProbesDone:
    """How long they took together in nanoseconds."""

    duration_ns: int


class ProbeBehavior:
    """Runs probe tasks. A task that sleeps does so before it comes here: sleeping needs no thread."""

    def start(self) -> None:
        """Nothing."""

    def receive(self, message: RunProbes) -> ProbesDone:
        """Runs them one after the other."""
        began_ns = stopwatch_ns()
        for _ in range(message.count):
            pass
        return ProbesDone(stopwatch_ns() - began_ns)

    def stop(self) -> None:
        """Nothing."""

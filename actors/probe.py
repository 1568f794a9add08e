"""Probe tasks: they do nothing, so they run on the event loop; what they cost is the way there and back."""

from __future__ import annotations


def run_probes(count: int) -> None:
    """Runs `count` probe tasks, one after the other. A task that sleeps does so before: sleeping needs no thread."""
    for _ in range(count):
        pass

"""Inference in the story of a model: windows that follow each other are told together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from coordinator.audit import telling
from coordinator.audit.heard import Heard
from coordinator.audit.story import Line, Tone
from coordinator.core.inference import InferenceWindow
from hivefold.errors import Reason
from hivefold.ids import ModelRef, NodeId
from hivefold.sketch import DurationSketch

_PAUSE_US = 60_000_000
"""After so long without a request a line of its own begins."""


@dataclass(slots=True)
class _Run:
    """What one node inferred with one version without a pause."""

    begun: Heard
    start_us: int
    end_us: int
    requests: int = 0
    unrecorded: int = 0
    failures: Counter[Reason] = field(default_factory=Counter)
    durations: DurationSketch = field(default_factory=DurationSketch)

    def add(self, window: InferenceWindow) -> None:
        self.end_us = max(self.end_us, window.start_time_us + window.span_us)
        self.requests += window.request_count
        self.unrecorded += window.unrecorded_count
        self.failures.update(dict(window.failures))
        self.durations.merge(window.sketch())

    def line(self, model: ModelRef, node_id: NodeId) -> Line:
        quantiles = [f"p{round(q * 100)} {telling.span(self.durations.quantile_us(q))}" for q in (0.5, 0.99)]
        failed = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.failures.items()))
        text = telling.joined(
            (
                f"{telling.count(self.requests, 'request')} for {model} on {node_id}",
                f"within {telling.span(self.end_us - self.start_us)}",
                *(quantiles if self.durations.buckets else ()),
                f"failed: {failed}" if failed else "",
                f"{self.unrecorded:,} not recorded one by one" if self.unrecorded else "",
            )
        )
        return self.begun.line("inferred", text, tone=Tone.WARNING if failed else Tone.PLAIN)


class Runs:
    """The runs that go on."""

    def __init__(self) -> None:
        self._open: dict[tuple[ModelRef, NodeId], _Run] = {}
        self.requests = 0

    def add(self, heard: Heard, node_id: NodeId, window: InferenceWindow) -> Iterator[Line]:
        """Counts a window in; the line of the run that had ended before it, if there was one."""
        self.requests += window.request_count
        key = window.model, node_id
        run = self._open.get(key)
        if run is not None and window.start_time_us - run.end_us > _PAUSE_US:
            yield self._open.pop(key).line(*key)
            run = None
        if run is None:
            run = self._open[key] = _Run(heard, window.start_time_us, window.start_time_us)
        run.add(window)

    def end(self) -> Iterator[Line]:
        """Lines of all runs: something else happened, or the story ends."""
        for key, run in self._open.items():
            yield run.line(*key)
        self._open.clear()

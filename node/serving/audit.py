"""What was inferred, noted while it happens: counts for windows, and the requests of models whose audit is full.

On the event loop, in the way of every request: nothing here computes more than an index or keeps more than a
reference. What is noted is digested and put into batches elsewhere (auditor.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hivefold.errors import HivefoldError, Reason
from hivefold.oip.limits import (
    AUDIT_BATCH_WINDOWS,
    AUDIT_CALLER_CHARACTERS,
    AUDIT_DIGEST_AT,
    AUDIT_DURATIONS,
    AUDIT_HELD_BYTES,
    AUDIT_HELD_REQUESTS,
)
from hivefold.oip.responses import OutputTensor
from hivefold.oip.tensors import WireTensor
from hivefold.sketch import DurationSketch


class Audited(NamedTuple):
    """A model version as the audit names it."""

    model: str
    digest: str
    full: bool


class Noted(NamedTuple):
    """A request of a model whose audit is full, as it ended. `names` are name and type of each output."""

    audited: Audited
    arrived_us: int
    took_us: int
    caller: str
    reason: Reason | None
    inputs: Sequence[WireTensor]
    names: Sequence[tuple[str, str]]
    outputs: Sequence[OutputTensor]


@dataclass(slots=True)
class Window:
    """What was inferred with one model version in a stretch of time."""

    audited: Audited
    requests: int = 0
    rows: int = 0
    failures: dict[Reason, int] = field(default_factory=dict)
    durations: DurationSketch = field(default_factory=DurationSketch)
    batches: dict[int, int] = field(default_factory=dict)
    unrecorded: int = 0

    def merge(self, later: Window) -> None:
        """Counts what `later` holds: the window grows."""
        self.requests += later.requests
        self.rows += later.rows
        self.unrecorded += later.unrecorded
        self.durations.merge(later.durations)
        for reason, count in later.failures.items():
            self.failures[reason] = self.failures.get(reason, 0) + count
        for rows, count in later.batches.items():
            self.batches[rows] = self.batches.get(rows, 0) + count


class Windows(NamedTuple):
    """Windows of one stretch of time, in microseconds."""

    start_us: int
    span_us: int
    windows: tuple[Window, ...]


class Ledger:
    """What was noted and is in no batch yet. Bounded: of requests, beyond what it holds, only the number is kept."""

    def __init__(self, now_us: int) -> None:
        self.on_crowd: Callable[[], None] = _nothing
        """Called when enough waits to be looked at before its time."""
        self._since_us = now_us
        self._windows: dict[Audited, Window] = {}
        self._took: dict[Audited, list[int]] = {}
        self._noted: list[Noted] = []
        self._held_bytes = 0

    @property
    def waiting(self) -> int:
        """Requests that wait to be digested."""
        return len(self._noted)

    def window(self, audited: Audited) -> Window:
        """The window of a model version, new where there is none."""
        window = self._windows.get(audited)
        if window is None:
            window = self._windows[audited] = Window(audited)
            self._took[audited] = []
            if len(self._windows) == AUDIT_BATCH_WINDOWS:
                self.on_crowd()
        return window

    def succeeded(self, audited: Audited, rows: int, took_ns: int) -> None:
        """A request ended well."""
        window = self._windows.get(audited) or self.window(audited)
        window.requests += 1
        window.rows += rows
        took = self._took[audited]
        took.append(took_ns)
        if len(took) >= AUDIT_DURATIONS:
            window.durations.add(took)
            took.clear()

    def failed(self, audited: Audited, reason: Reason) -> None:
        """A request failed."""
        window = self.window(audited)
        window.requests += 1
        window.failures[reason] = window.failures.get(reason, 0) + 1

    def ran(self, audited: Audited, rows: int) -> None:
        """A batch was run."""
        batches = self.window(audited).batches
        size = rows if rows <= 16 else 1 << (rows - 1).bit_length()
        batches[size] = batches.get(size, 0) + 1

    def note(self, noted: Noted) -> None:
        """Keeps a request by itself, where there is room; it was counted already."""
        size = 0
        for tensor in noted.inputs:
            size += len(tensor.data)
        for output in noted.outputs:
            size += len(output.data)
        if len(self._noted) >= AUDIT_HELD_REQUESTS or (self._held_bytes and self._held_bytes + size > AUDIT_HELD_BYTES):
            self.window(noted.audited).unrecorded += 1
            return
        self._held_bytes += size
        self._noted.append(noted)
        if len(self._noted) == AUDIT_DIGEST_AT:
            self.on_crowd()

    def take_noted(self) -> list[Noted]:
        """The requests that wait; they are the caller's from now on."""
        noted, self._noted = self._noted, []
        self._held_bytes = 0
        return noted

    def take_windows(self, now_us: int) -> Windows:
        """The windows up to now; new ones begin."""
        for audited, took in self._took.items():
            self._windows[audited].durations.add(took)
        taken = Windows(self._since_us, max(0, now_us - self._since_us), tuple(self._windows.values()))
        self._windows, self._took, self._since_us = {}, {}, now_us
        return taken

    def give_back(self, taken: Windows) -> None:
        """Puts windows back that could not be put into a batch: they go on."""
        self._since_us = taken.start_us
        for window in taken.windows:
            self.window(window.audited).merge(window)


class ModelAudit:
    """Notes how the requests of one served model version end. `caller` is asked only where requests are kept."""

    def __init__(self, audited: Audited, ledger: Ledger) -> None:
        self._audited = audited
        self._ledger = ledger

    def succeeded(
        self,
        inputs: Sequence[WireTensor],
        names: Sequence[tuple[str, str]],
        outputs: Sequence[OutputTensor],
        *,
        rows: int,
        caller: Callable[[], str],
        arrived_us: int,
        took_ns: int,
    ) -> None:
        """A request was answered."""
        audited = self._audited
        self._ledger.succeeded(audited, rows, took_ns)
        if audited.full:
            asked = caller()[:AUDIT_CALLER_CHARACTERS]
            self._ledger.note(Noted(audited, arrived_us, took_ns // 1000, asked, None, inputs, names, outputs))

    def failed(
        self,
        inputs: Sequence[WireTensor],
        error: HivefoldError | asyncio.CancelledError,
        *,
        caller: Callable[[], str],
        arrived_us: int,
        took_ns: int,
    ) -> None:
        """A request failed, or its caller went away."""
        audited = self._audited
        reason = error.reason if isinstance(error, HivefoldError) else Reason.CANCELLED
        self._ledger.failed(audited, reason)
        if audited.full:
            asked = caller()[:AUDIT_CALLER_CHARACTERS]
            self._ledger.note(Noted(audited, arrived_us, took_ns // 1000, asked, reason, inputs, (), ()))

    def ran(self, rows: int) -> None:
        """A batch was run."""
        self._ledger.ran(self._audited, rows)


def _nothing() -> None:
    """Nobody looks."""

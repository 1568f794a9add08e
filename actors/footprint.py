"""How much memory a model takes, as it was seen: while it was loaded, and when larger batches came than before."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from actors.session import Session
from actors.tensors import Array
from hivefold.memory import PeakResident, allocated_bytes, give_back_freed
from hivefold.models import TensorFacts

LOADING: Final = 0
"""In place of a number of rows: the peak while the model was loaded."""
_GIVE_BACK_BYTES: Final = 8 * 1024 * 1024
"""What is left to the allocator is given back from this size on: that takes milliseconds."""


class _Scale:
    """Weighs one thing at a time, for it counts the whole process. Nobody waits: what was not weighed is weighed later.

    What moves much memory beside a measurement spoils it, and says so.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._moves = 0

    def on(self) -> int:
        """Begins a measurement: a ticket for `off`, or -1 when another one is under way."""
        return self._moves if self._lock.acquire(blocking=False) else -1

    def off(self, ticket: int) -> bool:
        """Ends it; whether it counts."""
        self._lock.release()
        return self._moves == ticket

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Around what moves memory without being weighed."""
        self._moves += 1
        try:
            yield
        finally:
            self._moves += 1


_scale: Final = _Scale()


@dataclass(slots=True)
class Footprint:
    """What one loaded model was seen to take, in bytes; written by who loads and runs it, read by the loop."""

    held_bytes: int = 0
    """What it has now; 0 when its loading could not be weighed."""
    peaks: dict[int, int] = field(default_factory=dict)
    """The most that it had, by rows of a batch, rounded up to a power of two; `LOADING` is one of them."""
    rows: int = 0
    """The largest batch that was weighed: smaller ones take no more."""

    @contextmanager
    def weigh_load(self) -> Iterator[None]:
        """Around the loading of the model."""
        ticket = _scale.on()
        if ticket < 0:
            with _scale.beside():
                yield
            return
        held = rise = 0
        try:
            before, peak = allocated_bytes(), PeakResident()
            yield
            held = allocated_bytes() - before if before else 0
            rise = max(held, peak.rise_bytes())
        finally:
            if _scale.off(ticket) and held > 0:
                self.held_bytes, self.peaks[LOADING] = held, rise
        if rise - held > _GIVE_BACK_BYTES:
            give_back_freed()

    def weigh_run(self, session: Session, outputs: Sequence[str], feeds: Mapping[str, Array], rows: int) -> list[Array]:
        """Runs a batch that is larger than those before. What the runtime's arena took for it, it keeps."""
        ticket = _scale.on() if self.held_bytes else -1
        if ticket < 0:
            with _scale.beside():
                results = session.run(outputs, feeds)
            if not self.held_bytes:  # without its loading nothing can be told
                self.rows = max(self.rows, rows)
            return results
        before, after, given = allocated_bytes(), 0, 0
        try:
            results = session.run(outputs, feeds)
            after, given = allocated_bytes(), sum(result.nbytes for result in results)
        finally:
            if _scale.off(ticket) and after:
                size = 1 << (rows - 1).bit_length()
                self.held_bytes += max(0, after - before - given)
                self.peaks[size] = self.held_bytes + given
                self.rows = max(self.rows, rows)
        return results


class WeighedSession:
    """A session whose memory is followed: by the first batch of each size."""

    def __init__(self, inner: Session, footprint: Footprint) -> None:
        self._inner = inner
        self._footprint = footprint

    @property
    def inputs(self) -> tuple[TensorFacts, ...]:
        """What it must be given."""
        return self._inner.inputs

    @property
    def outputs(self) -> tuple[TensorFacts, ...]:
        """What it produces."""
        return self._inner.outputs

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """The named outputs for these inputs."""
        rows = 1
        for array in feeds.values():
            if array.ndim:
                rows = max(rows, len(array))
        if rows > self._footprint.rows:
            return self._footprint.weigh_run(self._inner, outputs, feeds, rows)
        return self._inner.run(outputs, feeds)

    def close(self) -> None:
        """Releases the model's memory, and sees to it that the system gets it."""
        with _scale.beside():
            self._inner.close()
            if self._footprint.held_bytes > _GIVE_BACK_BYTES:
                give_back_freed()

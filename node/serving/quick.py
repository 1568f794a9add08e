"""Which batches are so quick that they are run on the event loop: handing one to its actor costs more. Pure.

A size (rows, by powers of two) was measured in the actor first. One run on the loop that took too long, and the
model goes back to its actor for a while.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from actors.signature import Signature
from hivefold.oip.limits import QUICK_BYTES, QUICK_NS, QUICK_PAUSE_RUNS, QUICK_RUNS, QUICK_WORST_NS

_SIZES: Final = 24


def can_be_quick(signature: Signature) -> bool:
    """Whether nothing but the number of rows decides how large a request's tensors are."""
    known_from = 1 if signature.batchable else 0
    return all(
        facts.data_type != "BYTES" and all(size >= 0 for size in facts.shape[known_from:])
        for facts in (*signature.inputs, *signature.outputs)
    )


@dataclass(slots=True)
class _Size:
    """Runs of batches of about the same number of rows."""

    runs: int = 0
    usual_ns: int = 0


class Quick:
    """What was measured of one model."""

    def __init__(self) -> None:
        self._sizes = tuple(_Size() for _ in range(_SIZES))
        self._pause = 0
        """Runs in the actor that are still to come before the loop is tried again."""

    def allows(self, rows: int, size_bytes: int) -> bool:
        """Whether a batch of so many rows may be run on the loop."""
        if self._pause or size_bytes > QUICK_BYTES:
            return False
        size = self._sizes[min(rows.bit_length(), _SIZES - 1)]
        return size.runs >= QUICK_RUNS and size.usual_ns <= QUICK_NS

    def note(self, rows: int, took_ns: int, *, here: bool) -> None:
        """A batch was run, `here` on the loop or in the actor."""
        size = self._sizes[min(rows.bit_length(), _SIZES - 1)]
        size.runs += 1
        size.usual_ns += (took_ns - size.usual_ns) // min(size.runs, 8)
        if here and took_ns > QUICK_WORST_NS:
            self._pause = QUICK_PAUSE_RUNS
        elif self._pause and not here:
            self._pause -= 1

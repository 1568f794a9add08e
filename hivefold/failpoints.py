"""Points at which a process may be told to die, to show that it can: off unless HIVEFOLD_FAILPOINTS arms them.

`HIVEFOLD_FAILPOINTS=after_append=0.01,before_term=0.1` lets a daemon end itself by SIGKILL at each of these
points with that probability. As etcd's gofail and FreeBSD's failpoints: the worst moments are too short to hit from
outside. For tests; an unarmed point costs a look into an empty dictionary.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from hivefold.entropy import jitter

VARIABLE: Final = "HIVEFOLD_FAILPOINTS"


class Failpoint(StrEnum):
    """Where a process may die."""

    BEFORE_APPEND = "before_append"
    """The coordinator decided and has appended nothing yet."""
    MID_BATCH = "mid_batch"
    """All messages of a batch or chain are sent but the last."""
    AFTER_APPEND = "after_append"
    """A record is durable; nobody was answered, nothing was sent."""
    AFTER_CLOSE = "after_close"
    """The record that closes a segment is durable; the next segment is not there."""
    AFTER_ROLL = "after_roll"
    """The next segment is there and empty."""
    BEFORE_TERM = "before_term"
    """A candidate replayed to the head and has not started its term."""
    AFTER_TERM = "after_term"
    """A term has started; nothing that is owed was sent."""
    MID_SNAPSHOT = "mid_snapshot"
    """The parts of a snapshot are stored, its manifest is not."""
    BEFORE_RESULT = "before_result"
    """The node computed an outcome and has not stored it."""
    AFTER_RESULT = "after_result"
    """The outcome is stored; the work is not acknowledged."""


def parse(text: str) -> Mapping[Failpoint, float]:
    """Probabilities by point. Raises ValueError for what is neither."""
    pairs = (part.partition("=") for part in text.split(",") if part.strip())
    return {Failpoint(name.strip()): float(probability) for name, _, probability in pairs}


_armed: Final = parse(os.environ.get(VARIABLE, ""))


def strikes(point: Failpoint) -> bool:
    """Whether to die here, this time."""
    return bool(_armed) and jitter() < _armed.get(point, 0.0)


def reach(point: Failpoint) -> None:
    """Dies here where it strikes."""
    if strikes(point):
        die()


def die() -> None:
    """Ends the process as a loss of power would: nothing is flushed, nobody is told."""
    os.kill(os.getpid(), signal.SIGKILL)

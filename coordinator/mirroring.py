"""Keeps every segment of the log mirrored: the leader's, so that each new one has its mirror within seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from hivefold.errors import HivefoldError
from hivefold.log.segments import Segment

_log = structlog.get_logger(__name__)
_INTERVAL_S: Final = 2.0
"""How often it looks for a new segment."""


class Mirrored(Protocol):
    """Where the mirrors are."""

    async def ensure(self, segments: Sequence[int]) -> None:
        """Makes the mirrors that are missing. Raises HivefoldError."""
        ...

    async def all(self) -> Sequence[Segment]:
        """The mirrors with what they hold so far. Raises HivefoldError."""
        ...


class Segmented(Protocol):
    """A log that knows its segments."""

    @property
    def segments(self) -> Sequence[Segment]:
        """Those on the broker, in order, as far as is known."""
        ...


class Mirroring:
    """Follows the segments of a log. Two at once do no harm: a mirror is made once, and by its name."""

    def __init__(self, log: Segmented, mirrors: Mirrored) -> None:
        self._log = log
        self._mirrors = mirrors
        self._whole: set[int] = set()

    async def run(self) -> None:
        """Mirrors until it is cancelled; what fails is said and tried again."""
        while True:
            try:
                await self.step()
            except HivefoldError as error:
                _log.warning("the log is not wholly mirrored, trying again", error=error.message)
            await asyncio.sleep(_INTERVAL_S)

    async def step(self) -> None:
        """Makes what is missing. Raises HivefoldError."""
        await self._mirrors.ensure([segment.number for segment in self._log.segments])

    async def has(self, segment: Segment) -> bool:
        """Whether a sealed segment is mirrored to its end: until then its stream must stay. Raises HivefoldError."""
        if segment.number not in self._whole:
            for mirror in await self._mirrors.all():
                if (mirror.number, mirror.first, mirror.last) == (segment.number, segment.first, segment.last):
                    self._whole.add(segment.number)
        return segment.number in self._whole

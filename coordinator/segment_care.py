"""Where the segments of the log are (broker, mirror, archive), and what the leader does for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from coordinator import archiver
from coordinator.archiver import Archiver
from coordinator.mirroring import Mirrored, Mirroring
from hivefold.clock import Clock
from hivefold.log.archive import Archive
from hivefold.log.segments import Segment


@dataclass(frozen=True, slots=True)
class Place:
    """A segment, and where it is. `mirrored` is the last of its records that the mirror has; 0 for none."""

    number: int
    first: int
    last: int
    size_bytes: int = 0
    sealed: bool = False
    on_broker: bool = False
    mirrored: int = 0
    archive_path: str = ""
    verified: bool = False
    """Whether this coordinator has read the archive's file back whole."""


class SegmentedLog(archiver.SegmentedLog, Protocol):
    """A log whose segments can be looked at."""

    async def look_at_segments(self) -> Sequence[Segment]:
        """The segments on the broker as they are now. Raises BrokerUnavailableError."""
        ...


class SegmentCare:
    """The segments of one coordinator's log. `run` is the leader's."""

    def __init__(
        self, log: SegmentedLog, archive: Archive, mirrors: Mirrored | None, clock: Clock, *, keep: int
    ) -> None:
        self._log = log
        self._archive = archive
        self._mirrors = mirrors
        mirroring = self._mirroring = Mirroring(log, mirrors) if mirrors is not None else None
        self._archiver = Archiver(log, archive, clock, keep=keep)
        if mirroring is not None:
            self._archiver = Archiver(log, archive, clock, keep=keep, may_remove=mirroring.has)

    async def prepare(self) -> None:
        """Makes the mirrors that are missing. Raises ConfigError, BrokerUnavailableError."""
        if self._mirroring is not None:
            await self._mirroring.step()

    async def run(self) -> None:
        """Mirrors and archives until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._mirroring is not None:
                group.create_task(self._mirroring.run())
            if self._archive.directory is not None:
                group.create_task(self._archiver.run())

    async def places(self) -> Sequence[Place]:
        """Every segment that is anywhere, in order. Raises BrokerUnavailableError."""
        found: dict[int, Place] = {}
        mirrors = {each.number: each for each in await self._mirrors.all()} if self._mirrors is not None else {}
        for each in mirrors.values():
            found[each.number] = Place(each.number, each.first, each.last, each.size_bytes)
        for each in await self._log.look_at_segments():
            place = Place(each.number, each.first, each.last, each.size_bytes, each.sealed, on_broker=True)
            found[each.number] = place
        found |= await asyncio.to_thread(self._archived, found)
        for number, each in mirrors.items():
            found[number] = replace(found[number], mirrored=each.last)
        # Only the last takes records, whoever of the three still has the others.
        return [replace(found[each], sealed=found[each].sealed or each < max(found)) for each in sorted(found)]

    def _archived(self, known: dict[int, Place]) -> dict[int, Place]:
        """What is in the archive. A file does not say its segment's number: it follows from those after it."""
        numbers = {place.first: number for number, place in known.items()}
        found: dict[int, Place] = {}
        after: Place | None = None
        for file in reversed(self._archive.files()):
            number = numbers.get(file.first) or (after.number - 1 if after else 0)
            if not number:
                following = [place.number for place in known.values() if place.first == file.last + 1]
                number = following[0] - 1 if following else 0
            if number:
                place = known.get(number) or Place(number, file.first, file.last, file.path.stat().st_size, sealed=True)
                after = replace(place, archive_path=str(file.path), verified=file.first in self._archiver.verified)
                found[number] = after
        return found

"""Where the segments of a log are, and how they are listed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from coordinator.segment_care import Place, SegmentCare
from hivefold.clock import ManualClock
from hivefold.log.archive import Archive
from hivefold.log.memory import MemoryEventLog
from hivefold.log.port import Head, Stored
from hivefold.log.segments import Segment


def segment(number: int, first: int, last: int, *, sealed: bool = True) -> Segment:
    return Segment(number, first, last, size_bytes=100 * number, max_bytes=1 << 30, replicas=1, sealed=sealed)


class Broker:
    """A log of which the broker has some segments."""

    def __init__(self, *segments: Segment) -> None:
        self.segments: Sequence[Segment] = segments
        self._log = MemoryEventLog()

    async def look_at_segments(self) -> Sequence[Segment]:
        return self.segments

    async def remove(self, segment: Segment) -> None:
        self.segments = [each for each in self.segments if each != segment]

    async def head(self) -> Head:
        return await self._log.head()

    def read(self, *, after: int, up_to: int) -> AsyncIterator[Sequence[Stored]]:
        return self._log.read(after=after, up_to=up_to)

    async def close(self) -> None:
        await self._log.close()


class Mirror:
    """Mirrors of some segments; remembers for which it was asked."""

    def __init__(self, *segments: Segment) -> None:
        self.segments = list(segments)
        self.asked: list[int] = []

    async def ensure(self, segments: Sequence[int]) -> None:
        self.asked += segments

    async def all(self) -> Sequence[Segment]:
        return self.segments


def archive(directory: Path, *spans: tuple[int, int]) -> Archive:
    """An archive that holds files of these records; what is in them does not matter here."""
    for first, last in spans:
        (directory / f"{first:016d}-{last:016d}.hflog").write_bytes(b"x" * 50)
    return Archive(directory)


async def test_a_segment_is_listed_with_every_place_where_it_is(tmp_path: Path) -> None:
    """Archived and gone from the broker, on both, mirrored in part: each once, by number."""
    broker = Broker(segment(3, 21, 30), segment(4, 31, 35, sealed=False))
    mirror = Mirror(
        segment(2, 11, 20, sealed=False), segment(3, 21, 30, sealed=False), segment(4, 31, 33, sealed=False)
    )
    care = SegmentCare(broker, archive(tmp_path, (1, 10), (11, 20), (21, 30)), mirror, ManualClock(), keep=0)

    found = await care.places()

    assert [(each.number, each.first, each.last, each.sealed) for each in found] == [
        (1, 1, 10, True),
        (2, 11, 20, True),
        (3, 21, 30, True),
        (4, 31, 35, False),
    ]
    assert [each.on_broker for each in found] == [False, False, True, True]
    assert [each.mirrored for each in found] == [0, 20, 30, 33]
    assert [Path(each.archive_path).name[:16] for each in found[:3]] == [f"{first:016d}" for first in (1, 11, 21)]
    assert found[0].size_bytes == 50
    assert not any(each.verified for each in found)


async def test_without_mirror_and_archive_the_broker_has_all(tmp_path: Path) -> None:
    """As on a server that somebody runs without an account for the mirror."""
    care = SegmentCare(Broker(segment(1, 1, 5, sealed=False)), Archive(None), None, ManualClock(), keep=0)

    await care.prepare()

    assert await care.places() == [Place(1, 1, 5, 100, sealed=False, on_broker=True)]


async def test_missing_mirrors_are_made_at_the_start() -> None:
    """For every segment that is on the broker."""
    mirror = Mirror()
    broker = Broker(segment(1, 1, 5), segment(2, 6, 7, sealed=False))

    await SegmentCare(broker, Archive(None), mirror, ManualClock(), keep=0).prepare()

    assert mirror.asked == [1, 2]

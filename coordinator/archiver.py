"""Archives the closed segments of the log as files, off the hot path, and takes old ones from the broker where told to.

A file counts once it was read back whole and its last hash is the one that the log goes on from. Only then, and only
beyond the segments that are to be kept, a stream is removed: until then the broker has all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import structlog

from coordinator.history import hash_at
from coordinator.wire.records import GENESIS_HASH, decode_record
from hivefold.clock import Clock
from hivefold.errors import HivefoldError, LogCorruptError
from hivefold.log.archive import Archive
from hivefold.log.port import ReadableLog, Stored
from hivefold.log.segments import Segment

_log = structlog.get_logger(__name__)
_INTERVAL_S: Final = 2.0
"""How often it looks for a segment that was closed."""


class SegmentedLog(ReadableLog, Protocol):
    """A log that knows its segments."""

    @property
    def segments(self) -> Sequence[Segment]:
        """Those on the broker, in order, as far as is known."""
        ...

    async def remove(self, segment: Segment) -> None:
        """Takes a sealed segment from the broker for good. Raises BrokerUnavailableError."""
        ...


async def _always(_segment: Segment) -> bool:
    return True


class Archiver:
    """The leader's; two at once do no harm, for files appear whole under their name and are alike."""

    def __init__(
        self,
        log: SegmentedLog,
        archive: Archive,
        clock: Clock,
        *,
        keep: int = 0,
        may_remove: Callable[[Segment], Awaitable[bool]] = _always,
    ) -> None:
        """`keep` archived segments stay on the broker (0: all), and those that `may_remove` says must stay."""
        self._log = log
        self._archive = archive
        self._clock = clock
        self._keep = keep
        self._may_remove = may_remove
        self._verified: set[int] = set()

    @property
    def verified(self) -> frozenset[int]:
        """First positions of the segments whose files were read back whole since this term began."""
        return frozenset(self._verified)

    async def run(self) -> None:
        """Archives until it is cancelled; what fails is said and tried again."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            try:
                await self.step()
            except (HivefoldError, OSError) as error:
                _log.warning("segment not archived, trying again", error=str(error))

    async def step(self) -> None:
        """Archives what is closed and not archived. Raises HivefoldError, OSError."""
        sealed = [segment for segment in self._log.segments[:-1] if segment.sealed]
        for segment in sealed:
            if segment.first not in self._verified:
                await self._secure(segment)
                self._verified.add(segment.first)
        if self._keep:
            for segment in sealed[: -self._keep]:
                if not await self._may_remove(segment):
                    return
                await self._log.remove(segment)
                _log.info("segment removed from the broker", segment=segment.number, first=segment.first)

    async def _secure(self, segment: Segment) -> None:
        """Writes the segment's file where there is none; checks the one that is there."""
        from hivefold.log.file_writer import LogFileStart, LogFileWriter  # only those who archive need it

        path = self._archive.path_of(segment.first, segment.last)
        if not path.exists():
            previous, chain_id = GENESIS_HASH, await hash_at(self._log, 1)
            if segment.first > 1:
                previous = decode_record(await self._record(segment.first)).previous_hash
            start = LogFileStart(chain_id, segment.first, previous, create_time_us=self._clock.now_us())
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with LogFileWriter(path, start) as writer:
                async for page in self._log.read(after=segment.first - 1, up_to=segment.last):
                    await asyncio.to_thread(writer.records, page)
        # The next segment's first record names the hash of this one's last: the file must end with it.
        wanted = decode_record(await self._record(segment.last + 1)).previous_hash
        await asyncio.to_thread(_check, self._archive, segment, wanted)
        _log.info("segment archived", segment=segment.number, path=str(path))

    async def _record(self, sequence: int) -> Stored:
        async for page in self._log.read(after=sequence - 1, up_to=sequence):
            return page[0]
        raise LogCorruptError(f"record {sequence} is missing from the log", position=sequence)


def _check(archive: Archive, segment: Segment, last_hash: bytes) -> None:
    """Reads a file back. Raises LogFileInvalidError, or LogCorruptError where it is not that segment's."""
    from hivefold.log.file import LogFileReader

    path = archive.path_of(segment.first, segment.last)
    with LogFileReader(path) as reader:
        for _ in reader.entries():
            pass
        end = reader.end
        if (reader.header.first_sequence, end.last_sequence, end.last_hash) != (segment.first, segment.last, last_hash):
            raise LogCorruptError(
                f"{path} is not the archive of segment {segment.number}: move it away, it is written anew",
                position=segment.first,
            )

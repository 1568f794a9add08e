"""Archives the closed segments of the log as files, off the hot path, and takes old ones from the broker where told to.

A file counts once it was read back whole and its last hash is the one that the log goes on from. Only then, and only
beyond the segments that are to be kept, a stream is removed: until then the broker has all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import structlog

from coordinator.history import hash_at
from coordinator.wire.records import GENESIS_HASH, decode_record
from hivefold.clock import Clock
from hivefold.errors import HivefoldError, LogCorruptError, LogFileInvalidError
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
        self._damaged: dict[int, tuple[int, int] | None] = {}
        """First positions of segments whose files do not read as they must, with the files' stamps."""

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
        """Archives what is closed and not archived. A damaged file holds up no other segment; it is told at the end.

        Raises HivefoldError, OSError.
        """
        sealed = [segment for segment in self._log.segments[:-1] if segment.sealed]
        damage: LogCorruptError | None = None
        for segment in sealed:
            if not self._is_done(segment):
                try:
                    await self._secure(segment)
                except LogCorruptError as error:
                    self._damaged[segment.first], damage = self._stamp(segment), error
                else:
                    self._verified.add(segment.first)
        if self._keep:
            await self._thin_out(sealed[: -self._keep])
        if damage is not None:
            raise damage

    def _is_done(self, segment: Segment) -> bool:
        """Whether nothing can be done for it now: its file was read back whole, or is damaged and as it was."""
        stamp = self._stamp(segment)
        return segment.first in self._verified or (stamp is not None and stamp == self._damaged.get(segment.first))

    def _stamp(self, segment: Segment) -> tuple[int, int] | None:
        """When its file was written, and how large it is; None where there is none."""
        try:
            found = self._archive.path_of(segment.first, segment.last).stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_size

    async def _thin_out(self, segments: Sequence[Segment]) -> None:
        """Takes from the broker what is safe elsewhere, oldest first, without a gap."""
        for segment in segments:
            if segment.first not in self._verified or not await self._may_remove(segment):
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
    """Reads a file back. Raises LogCorruptError where it is damaged or not that segment's."""
    from hivefold.log.file import LogFileReader

    path = archive.path_of(segment.first, segment.last)
    try:
        with LogFileReader(path) as reader:
            for _ in reader.entries():
                pass
            first, end = reader.header.first_sequence, reader.end
    except LogFileInvalidError as error:
        raise _unfit(path, f"is damaged: {error.message}", segment) from error
    if (first, end.last_sequence, end.last_hash) != (segment.first, segment.last, last_hash):
        raise _unfit(path, f"is not the archive of segment {segment.number}", segment)


def _unfit(path: Path, why: str, segment: Segment) -> LogCorruptError:
    return LogCorruptError(f"{path} {why}; move it away, and it is written anew", position=segment.first)

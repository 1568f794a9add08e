"""Reads a log, or a part of it, from one self-contained file (docs/log-format.md), in constant memory.

A reader stops at the first entry that is not as it must be; it checks
framing, order, counts and the digests of the file, not yet the chain: whoever folds or verifies does.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from google.protobuf.message import DecodeError

from hivefold.errors import LogCorruptError, LogFileInvalidError
from hivefold.limits import LOG_FILE_READ_BYTES, READ_PAGE_RECORDS
from hivefold.log.chain import GENESIS_HASH, HASH_BYTES
from hivefold.log.framing import FORMAT_VERSION, MAGIC, TRAILER, Frames, Marks
from hivefold.log.port import TERM_SUBJECT, Head, Stored
from hivefold.v1.log_file_pb2 import LogFileEnd, LogFileEntry, LogFileHeader, LogFileMark
from hivefold.v1.record_pb2 import StoredRecord


class LogFileReader:
    """Reads a log file. The header is read at once; the rest when asked for.

    Besides `entries` it has the reading side of an EventLog, over the positions that the file holds.
    Raises LogFileInvalidError when it is none, OSError. Close it; it is a context manager.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._end: LogFileEnd | None = None
        try:
            self.header, self._body = self._read_header()
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return os.fstat(self._fd).st_size

    def entries(self) -> Iterator[tuple[int, LogFileEntry]]:
        """Yields every entry after the header, the end too, with its byte offset.

        Checks order, counts and digests of the whole file. Raises LogFileInvalidError at the first entry
        that is not as it must be.
        """
        frames = Frames(self._fd, digest=True)
        frames.take_magic(self.header.first_sequence)
        frames.next(self.header.first_sequence)
        found = LogFileEnd(last_sequence=self.header.first_sequence - 1)
        # Not in the message while it changes: what a message once held, it keeps until it goes itself.
        last_hash = self.header.previous_hash
        found.header_digest = frames.digest(self._body)
        marks = Marks()
        while True:
            position = found.last_sequence + 1
            offset, body = frames.next(position)
            entry = _parse(body, offset, position)
            match entry.WhichOneof("entry"):
                case "record":
                    self._check_record(entry.record, offset, position)
                    marks.record(position, offset)
                    found.record_count += 1
                    found.last_sequence, last_hash = position, entry.record.hash
                    if entry.record.subject == TERM_SUBJECT:
                        found.last_term_sequence = position
                case "checkpoint":
                    found.checkpoint_count += 1
                case "end":
                    found.last_hash, found.digest = last_hash, frames.digest(offset)
                    found.marks.extend(LogFileMark(sequence=s, offset=o) for s, o in marks.found)
                    _check_end(entry.end, found, offset)
                    _check_trailer(frames.rest(), offset, found.last_sequence)
                    yield offset, entry
                    return
                case _:
                    raise _misplaced(offset, position)
            yield offset, entry

    def records(self, *, after: int = 0) -> Iterator[Stored]:
        """Yields the records after `after`, to the end of the file. Raises as `entries`."""
        end = self.end
        position = max(after, self.header.first_sequence - 1)
        pages = _Pages(self._fd, *self._mark(position + 1), end.last_sequence)
        while page := pages.next(position + 1, end.last_sequence):
            yield from page
            position = page[-1].sequence

    @property
    def end(self) -> LogFileEnd:
        """What the file holds. Raises LogFileInvalidError where it is damaged or cut short."""
        if self._end is None:
            self._end = self._read_end()
        return self._end

    async def head(self) -> Head:
        """The last record in the file. Raises LogFileInvalidError."""
        end = await asyncio.to_thread(lambda: self.end)
        return Head(end.last_sequence, end.last_term_sequence)

    async def read(self, *, after: int, up_to: int) -> AsyncIterator[Sequence[Stored]]:
        """As EventLog.read. Raises LogCorruptError for positions that the file does not hold."""
        end = await asyncio.to_thread(lambda: self.end)
        position = after + 1
        if position < self.header.first_sequence:
            raise LogCorruptError(
                f"record {position} is not in {self.path}: it begins with {self.header.first_sequence}",
                position=position,
            )
        pages = _Pages(self._fd, *self._mark(position), end.last_sequence)
        while position <= up_to:
            page = await asyncio.to_thread(pages.next, position, up_to)
            if not page:
                raise LogCorruptError(
                    f"record {position} is not in {self.path}: it ends with {end.last_sequence}", position=position
                )
            position = page[-1].sequence + 1
            yield page

    async def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)

    def _read_header(self) -> tuple[LogFileHeader, int]:
        """The header, and where the entry after it begins."""
        frames = Frames(self._fd)
        frames.take_magic(1)
        offset, body = frames.next(1)
        entry = _parse(body, offset, 1)
        header = entry.header
        if entry.WhichOneof("entry") != "header":
            raise _misplaced(offset, 1)
        if header.format_version != FORMAT_VERSION:
            raise LogFileInvalidError(
                f"the file has format {header.format_version}, this hivefold reads {FORMAT_VERSION}; upgrade hivefold",
                offset=offset,
                position=1,
            )
        genesis = header.first_sequence == 1 and header.previous_hash != GENESIS_HASH
        if genesis or header.first_sequence < 1 or len(header.previous_hash) != HASH_BYTES:
            raise LogFileInvalidError("the header does not say where the file begins", offset=offset, position=1)
        return header, frames.offset

    def _read_end(self) -> LogFileEnd:
        """The end entry, found by the trailer; where that leads nowhere, the error that a whole reading meets."""
        size = self.size_bytes
        trailer = os.pread(self._fd, TRAILER.size, max(0, size - TRAILER.size))
        (at,) = TRAILER.unpack(trailer) if len(trailer) == TRAILER.size else (0,)
        try:
            if not self._body <= at < size:
                raise LogFileInvalidError("the file has no end", offset=size, position=self.header.first_sequence)
            offset, body = (frames := Frames(self._fd, at)).next(self.header.first_sequence)
            entry = _parse(body, offset, self.header.first_sequence)
            if entry.WhichOneof("entry") != "end" or frames.offset + TRAILER.size != size:
                raise _misplaced(offset, self.header.first_sequence)
        except LogFileInvalidError:
            for _ in self.entries():
                pass
            raise
        return entry.end

    def _mark(self, position: int) -> tuple[int, int]:
        """Where to begin reading for a position: byte offset, and the first record there."""
        marks = self.end.marks
        index = bisect_right(marks, position, key=lambda mark: mark.sequence) - 1
        if index < 0:
            return self._body, self.header.first_sequence
        return marks[index].offset, marks[index].sequence

    def _check_record(self, record: StoredRecord, offset: int, position: int) -> None:
        if record.sequence != position:
            raise LogFileInvalidError(
                f"record {position} is missing: the file goes on with {record.sequence} at byte {offset}",
                offset=offset,
                position=position,
            )
        if position == 1 and record.hash != self.header.chain_id:
            raise LogFileInvalidError(
                "record 1 is not that of the log that the header names", offset=offset, position=position
            )


class _Pages:
    """Pages of records from a place in a file on."""

    def __init__(self, fd: int, offset: int, sequence: int, last: int) -> None:
        self._frames = Frames(fd, offset)
        self._next = sequence
        self._last = last

    def next(self, position: int, up_to: int) -> list[Stored]:
        """The next records from `position` on, at most a page; none after the last."""
        page: list[Stored] = []
        size = 0
        while self._next <= min(up_to, self._last) and len(page) < READ_PAGE_RECORDS and size < LOG_FILE_READ_BYTES:
            offset, body = self._frames.next(self._next)
            entry = _parse(body, offset, self._next)
            kind = entry.WhichOneof("entry")
            if kind == "checkpoint":
                continue
            record = entry.record
            if kind != "record" or record.sequence != self._next:
                raise _misplaced(offset, self._next)
            self._next += 1
            if record.sequence >= position:
                page.append(Stored(record.sequence, record.subject, record.data))
                size += len(body)
        return page


def _parse(body: bytes, offset: int, position: int) -> LogFileEntry:
    entry = LogFileEntry()
    try:
        entry.ParseFromString(body)
    except DecodeError as error:
        raise LogFileInvalidError(
            f"the entry at byte {offset} does not parse: {error}", offset=offset, position=position
        ) from error
    return entry


def _check_end(end: LogFileEnd, found: LogFileEnd, offset: int) -> None:
    """Raises LogFileInvalidError when the end tells of another file than was read."""
    if end.header_digest != found.header_digest:
        raise LogFileInvalidError("the header was altered", offset=len(MAGIC), position=1)
    for name in ("last_sequence", "last_hash", "record_count", "last_term_sequence", "checkpoint_count", "digest"):
        if getattr(end, name) != getattr(found, name):
            raise LogFileInvalidError(
                f"the end of the file gives another {name} than was read: some of the file was altered",
                offset=offset,
                position=found.last_sequence,
            )
    if end != found:
        raise LogFileInvalidError("the end of the file was altered", offset=offset, position=found.last_sequence)


def _check_trailer(rest: bytes, offset: int, position: int) -> None:
    if rest != TRAILER.pack(offset):
        raise LogFileInvalidError(
            f"the end entry at byte {offset} is not followed by its own offset, and nothing else",
            offset=offset,
            position=position,
        )


def _misplaced(offset: int, position: int) -> LogFileInvalidError:
    return LogFileInvalidError(
        f"the entry at byte {offset} is not one that may stand there", offset=offset, position=position
    )

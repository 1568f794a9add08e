"""`hivefold log export`: the log, or a part of it, in one self-contained file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt

from cli import words
from cli.address import Target
from cli.log.source import LiveLog
from cli.output import facts, show_one
from cli.progress import Bar
from hivefold.errors import InvalidRequestError

if TYPE_CHECKING:
    from cli.log.json_lines import JsonLinesWriter
    from hivefold.client import Fleet
    from hivefold.log.file_writer import LogFileStart, LogFileWriter
    from hivefold.log.port import Stored
    from hivefold.v1.checkpoint_pb2 import SignedCheckpoint


def export(
    file: Path,
    *,
    jsonl: Annotated[bool, Parameter(negative=())] = False,
    after: NonNegativeInt = 0,
    up_to: NonNegativeInt | None = None,
    force: Annotated[bool, Parameter(negative=())] = False,
    target: Target = Target(),  # noqa: B008 - frozen
) -> None:
    """Write the log into one self-contained file: records, checkpoints, public keys, schema.

    Everything that looks into a log works on the file alone, without a fleet. Only its owner may read it.

    Parameters
    ----------
    file
        Where to write; e.g. fleet.hflog.
    jsonl
        Write JSON lines instead, for programs that would rather not parse protobuf.
    after
        Only records after this position.
    up_to
        Only records up to this position.
    force
        Replace the file where it exists.
    """
    from hivefold.clock import stopwatch_ns

    began = stopwatch_ns()

    async def write(fleet: Fleet) -> LogFileWriter | JsonLinesWriter:
        head = await fleet.log.head()
        last = head.sequence if up_to is None else up_to
        if not after <= last <= head.sequence:
            raise InvalidRequestError(f"the log has records 1 to {head.sequence}, not {after + 1} to {last}")
        start = await _start(fleet, after, head.sequence)
        signed = _Signed(fleet.log.checkpoints(up_to_size=last))
        await signed.skip(after)
        with _writer(file, start, jsonl=jsonl, replace=force) as writer, Bar("export", "records") as bar:
            async for page in LiveLog(fleet).read(after=after, up_to=last):
                await signed.add(writer, page)
                bar.update(writer.record_count, last - after)
        return writer

    writer = target.ask(write)
    seconds = (stopwatch_ns() - began) / 1e9
    found: dict[str, Any] = {
        "file": str(file),
        "firstSequence": str(after + 1),
        "lastSequence": str(writer.last_sequence),
        "lastHash": writer.last_hash.hex(),
        "recordCount": str(writer.record_count),
        "sizeBytes": str(writer.size_bytes),
    }
    told = [
        ("written", f"{file}, {words.size(writer.size_bytes)}"),
        ("records", f"{words.count(writer.record_count)} in {words.span(seconds)}, up to {writer.last_sequence}"),
        ("last hash", writer.last_hash.hex()),
    ]
    show_one(target, found, lambda: facts(told))


def _writer(path: Path, start: LogFileStart, *, jsonl: bool, replace: bool) -> LogFileWriter | JsonLinesWriter:
    from cli.log.json_lines import JsonLinesWriter
    from hivefold.log.file_writer import LogFileWriter

    kind = JsonLinesWriter if jsonl else LogFileWriter
    return kind(path, start, replace=replace)


class _Signed:
    """The checkpoints, each put where it belongs: after the last record that it is about."""

    def __init__(self, checkpoints: AsyncIterator[SignedCheckpoint]) -> None:
        self._checkpoints = checkpoints
        self._next: SignedCheckpoint | None = None
        self._size = 0

    async def skip(self, size: int) -> None:
        """Goes to the first over more records than that."""
        from hivefold.proof.checkpoint import read_note

        while True:
            self._next = await anext(self._checkpoints, None)
            if self._next is None:
                return
            self._size = read_note(self._next.note).checkpoint.size
            if self._size > size:
                return

    async def add(self, writer: LogFileWriter | JsonLinesWriter, page: Sequence[Stored]) -> None:
        """Writes a page with the checkpoints in it."""
        while self._next is not None and self._size <= page[-1].sequence:
            count = self._size - page[0].sequence + 1
            writer.records(page[:count])
            writer.checkpoint(self._next)
            page = page[count:]
            await self.skip(self._size)
            if not page:
                return
        writer.records(page)


async def _start(fleet: Fleet, after: int, head: int) -> LogFileStart:
    """Where the file begins. Raises HivefoldError."""
    from hivefold.clock import SystemClock
    from hivefold.log.chain import GENESIS_HASH
    from hivefold.log.file_writer import LogFileStart

    first = await _hash(fleet, 1) if head else b""
    previous = await _hash(fleet, after) if after else GENESIS_HASH
    return LogFileStart(first, after + 1, previous, create_time_us=SystemClock().now_us())


async def _hash(fleet: Fleet, position: int) -> bytes:
    """Hash of one record."""
    from hivefold.log.chain import record_hash

    async for record in fleet.log.read(after=position - 1, up_to=position):
        return record_hash(record.sequence, record.subject, record.data)
    raise InvalidRequestError(f"the log has no record {position}")

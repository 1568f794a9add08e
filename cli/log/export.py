"""`hivefold log export`: the log, or a part of it, in one self-contained file."""

from __future__ import annotations

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
        with _writer(file, start, jsonl=jsonl, replace=force) as writer, Bar("export", "records") as bar:
            async for page in LiveLog(fleet).read(after=after, up_to=last):
                writer.records(page)
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

"""`hivefold log export`: the log, or a part of it, in one self-contained file."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
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
from hivefold.limits import CHECKPOINT_INTERVAL_S, GRPC_DEADLINE_S

if TYPE_CHECKING:
    from cli.log.json_lines import JsonLinesWriter
    from hivefold.client import Fleet
    from hivefold.log.file_writer import LogFileStart, LogFileWriter
    from hivefold.v1.checkpoint_pb2 import SignedCheckpoint, SigningKey


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
        head = (await fleet.log.head()).sequence
        last = await _signed_end(fleet, head) if up_to is None else up_to
        if not after <= last or (up_to or 0) > head:
            raise InvalidRequestError(f"the log has records 1 to {head}, not {after + 1} to {last}")
        signed = _Signed(fleet, after, last)
        start = await _start(fleet, after, last, await signed.keys_before())
        with _writer(file, start, jsonl=jsonl, replace=force) as writer, Bar("export", "records") as bar:
            async for page in LiveLog(fleet).read(after=after, up_to=last):
                for stored in page:
                    writer.record(stored)
                    if (checkpoint := await signed.at(stored.sequence)) is not None:
                        writer.checkpoint(checkpoint)
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
        "checkpointCount": str(writer.checkpoint_count),
        "signedUpTo": str(writer.signed_up_to),
        "sizeBytes": str(writer.size_bytes),
    }
    told = [
        ("written", f"{file}, {words.size(writer.size_bytes)}"),
        ("records", f"{words.count(writer.record_count)} in {words.span(seconds)}, up to {writer.last_sequence}"),
        ("signed", f"up to {writer.signed_up_to}, {words.count(writer.checkpoint_count)} checkpoints"),
        ("last hash", writer.last_hash.hex()),
    ]
    show_one(target, found, lambda: facts(told))


def _writer(path: Path, start: LogFileStart, *, jsonl: bool, replace: bool) -> LogFileWriter | JsonLinesWriter:
    from cli.log.json_lines import JsonLinesWriter
    from hivefold.log.file_writer import LogFileWriter

    kind = JsonLinesWriter if jsonl else LogFileWriter
    return kind(path, start, replace=replace)


async def _start(fleet: Fleet, after: int, last: int, keys: Sequence[SigningKey]) -> LogFileStart:
    """Where the file begins. Raises HivefoldError."""
    from hivefold.clock import SystemClock
    from hivefold.log.chain import GENESIS_HASH
    from hivefold.log.file_writer import LogFileStart

    first = await _hash(fleet, 1) if last else b""
    previous = await _hash(fleet, after) if after else GENESIS_HASH
    return LogFileStart(first, after + 1, previous, keys, SystemClock().now_us())


async def _hash(fleet: Fleet, position: int) -> bytes:
    """Hash of one record."""
    from hivefold.log.chain import record_hash

    async for record in fleet.log.read(after=position - 1, up_to=position):
        return record_hash(record.sequence, record.subject, record.data)
    raise InvalidRequestError(f"the log has no record {position}")


async def _signed_end(fleet: Fleet, head: int) -> int:
    """The position of the first checkpoint that covers `head`; `head` where none comes in time.

    One is due each CHECKPOINT_INTERVAL_S; a coordinator or disk that is busy may take as long as for any other answer.
    """
    deadline = asyncio.get_running_loop().time() + GRPC_DEADLINE_S
    while head and asyncio.get_running_loop().time() < deadline:
        async for checkpoint in fleet.log.checkpoints(after_size=head - 1):
            return _size(checkpoint)
        await asyncio.sleep(CHECKPOINT_INTERVAL_S / 5)
    return head


def _size(checkpoint: SignedCheckpoint) -> int:
    """How many records a checkpoint is of: the second line of its note."""
    return int(checkpoint.note.split("\n", 2)[1])


async def _key_changes(fleet: Fleet, after: int, up_to: int) -> int:
    """How many times the signing key changes in a range."""
    from hivefold.log.port import KEY_SUBJECT
    from hivefold.v1.record_pb2 import Record

    changes = 0
    async for record in fleet.log.read(after=after, up_to=up_to):
        if record.subject == KEY_SUBJECT:
            events = Record.FromString(record.data).events
            changes += sum(event.HasField("signing_key_changed") for event in events)
    return changes


class _Signed:
    """The checkpoints of a range, one at a time."""

    def __init__(self, fleet: Fleet, after: int, last: int) -> None:
        self._fleet = fleet
        self._after = after
        self._rest = fleet.log.checkpoints(after_size=after, up_to_size=last)
        self._next: SignedCheckpoint | None = None
        self._begun = False

    async def keys_before(self) -> Sequence[SigningKey]:
        """The keys that the first of them names, without those that records of the range bring.

        A range from record 1 brings them all: they are told beforehand, for people.
        """
        await self._begin()
        if self._next is None or not self._after:
            return self._next.keys if self._next is not None else ()
        brought = await _key_changes(self._fleet, self._after, _size(self._next))
        return self._next.keys[: max(0, len(self._next.keys) - brought)]

    async def at(self, sequence: int) -> SignedCheckpoint | None:
        """The one of so many records, if there is one. `sequence` MUST grow from call to call."""
        await self._begin()
        while self._next is not None and _size(self._next) < sequence:
            self._next = await anext(self._rest, None)
        return self._next if self._next is not None and _size(self._next) == sequence else None

    async def _begin(self) -> None:
        if not self._begun:
            self._begun, self._next = True, await anext(self._rest, None)

"""Where a command reads the log: a file, or a live fleet's as its coordinator serves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cli.address import Target
from hivefold.errors import InvalidRequestError, LogCorruptError
from hivefold.log.port import Head, ReadableLog, Stored

if TYPE_CHECKING:
    from hivefold.client import Fleet

_Answer = TypeVar("_Answer")


class LiveLog:
    """The log of a fleet, for readers (ReadableLog); the fleet stays the caller's to close."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    async def head(self) -> Head:
        """The end of the log. Raises HivefoldError."""
        head = await self.fleet.log.head()
        return Head(head.sequence, 0)

    async def read(self, *, after: int, up_to: int) -> AsyncIterator[Sequence[Stored]]:
        """As EventLog.read. Raises HivefoldError."""
        position = after
        if position >= up_to:
            return
        async for page in self.fleet.log.pages(after=after, up_to=up_to):
            position = page[-1].sequence
            yield [Stored(record.sequence, record.subject, record.data) for record in page]
        if position != up_to:
            raise LogCorruptError(
                f"the log ended at record {position} and not at {up_to}: records are missing", position=position + 1
            )

    async def close(self) -> None:
        """Nothing to do."""


def read_log(target: Target, file: Path | None, question: Callable[[ReadableLog], Awaitable[_Answer]]) -> _Answer:
    """What `question` answers, given the log in `file` or else the fleet's. Raises HivefoldError, OSError."""
    if file is None:
        return target.ask(lambda fleet: question(LiveLog(fleet)))

    async def answer() -> _Answer:
        from hivefold.log.file import LogFileReader

        with LogFileReader(file) as reader:
            return await question(reader)

    return asyncio.run(answer())


def first_of(log: ReadableLog) -> int:
    """Position of the first record that `log` can hold."""
    from hivefold.log.file import LogFileReader

    return log.header.first_sequence if isinstance(log, LogFileReader) else 1


def from_the_beginning(log: ReadableLog) -> None:
    """Raises InvalidRequestError when `log` is a file that does not begin at record 1: a state is a fold from there."""
    first = first_of(log)
    if first > 1:
        raise InvalidRequestError(f"the file begins with record {first}: this needs the log from record 1 on")

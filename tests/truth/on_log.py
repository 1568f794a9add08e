"""Operations on the log: right and wrong appends of two writers, reads, reopening, a full log."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from hivefold.errors import HivefoldError, LogCorruptError
from hivefold.limits import APPEND_BATCH_RECORDS, RECORD_BYTES
from hivefold.log.port import CLOSE_SUBJECT, TERM_SUBJECT, Entry, Head
from tests.truth.cast import Cast, Writer
from tests.truth.operations import Operation


def said(error: Exception) -> object:
    """An error in a form that can be compared."""
    return (type(error).__name__, error.position) if isinstance(error, LogCorruptError) else type(error).__name__


@dataclass(frozen=True)
class LookAtHead(Operation):
    """A writer reads where the log ends, and believes it."""

    leading: bool

    async def on(self, cast: Cast, due: int) -> object:
        writer = cast.writer(leading=self.leading)
        writer.idea = await writer.log.head()
        return writer.idea


@dataclass(frozen=True)
class BeginTerm(Operation):
    """One of both takes the lead, after a look at the log or from an old idea of it."""

    writer: int
    looks: bool

    async def on(self, cast: Cast, due: int) -> object:
        writer = cast.writers[self.writer]
        try:
            if self.looks:
                writer.idea = await writer.log.head()
            head = writer.idea
            await _append(writer, (Entry(TERM_SUBJECT, b"term %d" % cast.unique()),), head)
        except HivefoldError as error:
            return said(error)
        cast.leader = self.writer
        writer.idea = Head(head.sequence + 1, head.sequence + 1)
        return writer.idea


@dataclass(frozen=True)
class Append(Operation):
    """An append by a writer whose idea of the log may be wrong by so much."""

    leading: bool
    count: int
    size: int
    off_sequence: int = 0
    off_term: int = 0

    async def on(self, cast: Cast, due: int) -> object:
        writer = cast.writer(leading=self.leading)
        off = Head(max(0, writer.idea.sequence + self.off_sequence), max(0, writer.idea.term_sequence + self.off_term))
        entries = tuple(
            Entry(f"log.job.j{number % 3}", b"%d %d " % (cast.unique(), number) + bytes(self.size))
            for number in range(self.count)
        )
        try:
            await _append(writer, entries, off)
        except (HivefoldError, ValueError) as error:
            return said(error)
        writer.idea = Head(off.sequence + self.count, off.term_sequence)
        return writer.idea


@dataclass(frozen=True)
class AppendAgain(Operation):
    """The very same append again, as a writer may that could not settle it."""

    leading: bool

    async def on(self, cast: Cast, due: int) -> object:
        writer = cast.writer(leading=self.leading)
        entries, head = writer.last
        try:
            if entries:
                await _append(writer, entries, head)
        except HivefoldError as error:
            return said(error)
        return len(entries)


@dataclass(frozen=True)
class CloseSegment(Operation):
    """A writer closes the segment; until a term record opens the next, its other appends are refused."""

    leading: bool

    async def on(self, cast: Cast, due: int) -> object:
        writer = cast.writer(leading=self.leading)
        head = writer.idea
        try:
            await _append(writer, (Entry(CLOSE_SUBJECT, b"close %d" % cast.unique()),), head)
        except (HivefoldError, ValueError) as error:
            return said(error)
        writer.idea = Head(head.sequence + 1, head.term_sequence)
        return writer.idea


_BROKEN = {
    "none": (),
    "too many": (Entry("log.job.x", b"x"),) * (APPEND_BATCH_RECORDS + 1),
    "empty": (Entry("log.job.x", b""),),
    "too large": (Entry("log.job.x", bytes(RECORD_BYTES + 1)),),
    "too much": (Entry("log.job.x", bytes(RECORD_BYTES)),) * 10,
    "foreign": (Entry("work.node-1", b"x"),),
    "term among others": (Entry("log.job.x", b"x"), Entry(TERM_SUBJECT, b"x")),
}


@dataclass(frozen=True)
class AppendBroken(Operation):
    """An append that breaks the contract."""

    kind: str

    async def on(self, cast: Cast, due: int) -> object:
        writer = cast.writer(leading=True)
        try:
            await _append(writer, _BROKEN[self.kind], writer.idea)
        except ValueError as error:
            return str(error)
        return "stored"


@dataclass(frozen=True)
class Read(Operation):
    """A read of a part of the log, counted from its end, perhaps past it."""

    leading: bool
    back: int
    length: int

    async def on(self, cast: Cast, due: int) -> object:
        log = cast.writer(leading=self.leading).log
        after = max(0, (await log.head()).sequence - self.back)
        try:
            pages = log.read(after=after, up_to=after + self.length)
            return [(r.sequence, r.subject, r.data) async for page in pages for r in page]
        except HivefoldError as error:
            return said(error)


@dataclass(frozen=True)
class ReopenLog(Operation):
    """A coordinator's process starts anew: it knows nothing."""

    writer: int

    async def on(self, cast: Cast, due: int) -> object:
        await _relieve(cast)
        await cast.side.reopen_log(self.writer)
        cast.writers[self.writer] = Writer(cast.side.logs[self.writer])
        return await cast.writers[self.writer].log.head()


@dataclass(frozen=True)
class FillLog(Operation):
    """The log has no room left, or has room again."""

    full: bool

    async def on(self, cast: Cast, due: int) -> object:
        log = cast.writers[0].log
        head = await log.head()
        last = [
            record async for page in log.read(after=max(0, head.sequence - 1), up_to=head.sequence) for record in page
        ]
        # Where a segment was closed there is nothing to fill: the next one has room of its own.
        if last and last[0].subject != CLOSE_SUBJECT and cast.log_full != self.full:
            await cast.side.set_log_full(full=self.full)
            cast.log_full = self.full
        return head


async def _relieve(cast: Cast) -> None:
    if cast.log_full:
        await cast.side.set_log_full(full=False)
        cast.log_full = False


async def _append(writer: Writer, entries: tuple[Entry, ...], head: Head) -> None:
    writer.last = entries, head
    await writer.log.append(entries, expected_sequence=head.sequence, term_sequence=head.term_sequence)


def draw_on_log(chance: Random) -> Operation:
    """One operation on the log."""
    leading = chance.random() < 0.85
    match chance.choices(range(10), (6, 5, 45, 5, 2, 25, 1, 1, 4, 1))[0]:
        case 0:
            return LookAtHead(leading)
        case 1:
            return BeginTerm(chance.randrange(2), looks=chance.random() < 0.85)
        case 2:
            return Append(
                leading,
                count=chance.choice((1, 1, 1, 2, 3, 5, 9, 12)),
                size=chance.choice((0, 0, 10, 300, 5000)),
                off_sequence=chance.choice((0,) * 12 + (-1, -2, -3, 1, 4)),
                off_term=chance.choice((0,) * 12 + (-1, 1)),
            )
        case 3:
            return AppendAgain(leading)
        case 4:
            return AppendBroken(chance.choice(sorted(_BROKEN)))
        case 5:
            return Read(leading, back=chance.randrange(20), length=chance.randrange(22))
        case 6:
            return ReopenLog(chance.randrange(2))
        case 7:
            return FillLog(full=True)
        case 8:
            return FillLog(full=False)
        case _:
            return CloseSegment(leading)

"""`hivefold log`: read the log, rebuild the state from it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from cyclopts.types import NonNegativeInt

from cli import words
from cli.address import Target
from cli.exits import Exit
from cli.output import facts, show_one, write_json
from cli.progress import Bar
from hivefold.errors import LogCorruptError
from hivefold.limits import READ_PAGE_RECORDS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from coordinator.replay import Replayed
    from hivefold.client import Fleet
    from hivefold.v1 import log_service_pb2, record_pb2

app = App(name="log", help="Read the log, rebuild the state from it.")


@app.command
def tail(
    *,
    lines: Annotated[NonNegativeInt, Parameter(name=("--lines", "-n"))] = 20,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"), negative=())] = False,
    after: NonNegativeInt | None = None,
    target: Target = Target(),  # noqa: B008 - frozen
) -> None:
    """Print the last records: position, time, term, cause, events.

    Parameters
    ----------
    lines
        How many.
    follow
        Go on with new records as they come.
    after
        Instead of the last ones: all records after this position.
    """

    async def read(fleet: Fleet) -> None:
        head = await fleet.log.head()
        start = max(0, head.sequence - lines) if after is None else after
        if start >= head.sequence and not follow:
            return
        async for stored in fleet.log.read(after=start, up_to=0 if follow else head.sequence, follow=follow):
            _show_record(target, stored)

    target.ask(read)


@app.command
def replay(*, target: Target = Target()) -> int:  # noqa: B008 - frozen
    """Rebuild the state from record 1 and compare its digest with the live coordinator's at the same position.

    Checks on the way that every record is there, unaltered and in order. Exits 1 when the digests differ.
    """
    head, replayed, seconds = target.ask(_replayed)
    equal = replayed.state.sequence == head.sequence and replayed.digest() == head.state_digest
    found: dict[str, Any] = {
        "sequence": str(replayed.state.sequence),
        "term": str(replayed.state.term),
        "hash": replayed.head_hash.hex(),
        "stateDigest": replayed.digest(),
        "liveStateDigest": head.state_digest,
        "equal": equal,
    }
    show_one(target, found, lambda: _shown(replayed, head, seconds=seconds, equal=equal))
    return Exit.OK if equal else Exit.FAILED


async def _replayed(fleet: Fleet) -> tuple[log_service_pb2.GetHeadResponse, Replayed, float]:
    """The live head with its digest, the fold of the log up to there, and how long that took."""
    import asyncio

    from coordinator.replay import Replayer
    from hivefold.log.port import Stored

    clock = asyncio.get_running_loop().time
    head = await fleet.log.head(with_state_digest=True)
    replayer = Replayer()
    began, position = clock(), 0
    with Bar("replay", "records") as bar:
        async for page in _pages(fleet, head.sequence):
            replayer.feed([Stored(record.sequence, record.subject, record.data) for record in page])
            position = page[-1].sequence
            bar.update(position, head.sequence)
    if position != head.sequence:
        raise LogCorruptError(
            f"the log ended at record {position} and not at {head.sequence}: records are missing", position=position + 1
        )
    return head, replayer.result(), clock() - began


async def _pages(fleet: Fleet, up_to: int) -> AsyncIterator[list[record_pb2.StoredRecord]]:
    page: list[record_pb2.StoredRecord] = []
    if not up_to:
        return
    async for record in fleet.log.read(up_to=up_to):
        page.append(record)
        if len(page) == READ_PAGE_RECORDS:
            yield page
            page = []
    if page:
        yield page


def _shown(replayed: Replayed, head: log_service_pb2.GetHeadResponse, *, seconds: float, equal: bool) -> RenderableType:
    records = replayed.state.sequence
    speed = f" ({words.rate(records / seconds, 'records')})" if seconds else ""
    return facts(
        [
            ("replayed", f"{words.count(records)} records in {words.span(seconds)}{speed}"),
            ("position", f"record {words.count(records)} of term {replayed.state.term}"),
            ("last hash", replayed.head_hash.hex()),
            ("replayed state", replayed.digest()),
            ("live state", head.state_digest),
            (
                "",
                "[bold green]equal[/]" if equal else "[bold red]DIFFERENT[/]: please report it, with a copy of the log",
            ),
        ]
    )


def _show_record(target: Target, stored: record_pb2.StoredRecord) -> None:
    from cli.views import records

    if target.output == "text":
        print(records.line(stored), flush=True)
    else:
        write_json(records.plain(stored))

"""`hivefold log replay`: rebuild the state from the log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import words
from cli.address import Target
from cli.exits import Exit
from cli.log.source import LiveLog, read_log
from cli.output import facts, show_one
from cli.progress import Bar
from hivefold.log.port import ReadableLog

if TYPE_CHECKING:
    from rich.console import RenderableType

    from coordinator.replay import Replayed
    from hivefold.client import Fleet
    from hivefold.v1 import log_service_pb2


def replay(file: Path | None = None, *, target: Target = Target()) -> int:  # noqa: B008 - frozen
    """Rebuild the state from the log, checking on the way that every record is there, unaltered and in order.

    Of a live fleet: compares the state's digest with the coordinator's at the same position; exits 1 when they differ.

    Parameters
    ----------
    file
        A log file, see `hivefold log export`; otherwise the log of the fleet.
    """
    if file is None:
        head, replayed, seconds = target.ask(_live)
    else:
        replayed, seconds = read_log(target, file, _folded)
        head = None
    live = head.state_digest if head else ""
    equal = head is None or (replayed.state.sequence == head.sequence and replayed.digest() == live)
    found: dict[str, Any] = {
        "sequence": str(replayed.state.sequence),
        "term": str(replayed.state.term),
        "hash": replayed.head_hash.hex(),
        "stateDigest": replayed.digest(),
    }
    if head:
        found |= {"liveStateDigest": live, "equal": equal}
    show_one(target, found, lambda: _shown(replayed, live, seconds=seconds, equal=equal))
    return Exit.OK if equal else Exit.FAILED


async def _live(fleet: Fleet) -> tuple[log_service_pb2.GetHeadResponse, Replayed, float]:
    """The live head with its digest, the fold of the log up to there, and how long that took."""
    head = await fleet.log.head(with_state_digest=True)
    return head, *await _folded(LiveLog(fleet), head.sequence)


async def _folded(log: ReadableLog, up_to: int | None = None) -> tuple[Replayed, float]:
    """The fold of a log up to a position (its end), and how long that took."""
    from coordinator.replay import replay as fold

    clock = asyncio.get_running_loop().time
    last = (await log.head()).sequence if up_to is None else up_to
    began = clock()
    with Bar("replay", "records") as bar:
        replayed = await fold(log, up_to=last, progress=lambda position: bar.update(position, last))
    return replayed, clock() - began


def _shown(replayed: Replayed, live: str, *, seconds: float, equal: bool) -> RenderableType:
    records = replayed.state.sequence
    speed = f" ({words.rate(records / seconds, 'records')})" if seconds else ""
    return facts(
        [
            ("replayed", f"{words.count(records)} records in {words.span(seconds)}{speed}"),
            ("position", f"record {words.count(records)} of term {replayed.state.term}"),
            ("last hash", replayed.head_hash.hex()),
            ("replayed state", replayed.digest()),
            ("live state", live),
            (
                "",
                (
                    "[bold green]equal[/]"
                    if equal
                    else "[bold red]DIFFERENT[/]: please report it, with a copy of the log"
                )
                if live
                else "",
            ),
        ]
    )

"""`hivefold log replay`: rebuild the state from the log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts.types import PositiveInt

from cli import words
from cli.address import Target
from cli.exits import Exit
from cli.log.source import LiveLog, from_the_beginning, read_log
from cli.output import facts, show_many, show_one
from cli.progress import Bar
from hivefold.log.port import ReadableLog

if TYPE_CHECKING:
    from rich.console import RenderableType

    from coordinator.replay import Replayed
    from hivefold.client import Fleet
    from hivefold.v1 import log_service_pb2


def replay(
    file: Path | None = None,
    *,
    at: str = "",
    tasks: str = "",
    limit: PositiveInt = 50,
    target: Target = Target(),  # noqa: B008 - frozen
) -> int:
    """Rebuild the state from the log, checking on the way that every record is there, unaltered and in order.

    Shows the state at a moment: nodes, models, jobs. Without --at, of a live fleet: compares the state's digest with
    the coordinator's at the same position, and exits 1 when they differ.

    Parameters
    ----------
    file
        A log file, see `hivefold log export`; otherwise the log of the fleet.
    at
        The moment: a position (120), a time with its zone (2026-11-21T14:00:00Z), a span before the last record (5m),
        or "end".
    tasks
        Show the tasks of this job instead.
    limit
        At most this many jobs or tasks.
    """
    if file is None and not at and not tasks:
        return _compare(target)
    replayed = _moment(target, file, at or "end")
    if tasks:
        _show_tasks(target, replayed, tasks, limit)
        return Exit.OK
    from cli.views.moments import moment_plain, moment_view

    show_one(target, moment_plain(replayed, limit), lambda: moment_view(replayed, limit))
    return Exit.OK


def _moment(target: Target, file: Path | None, text: str) -> Replayed:
    """The state at a moment."""
    from coordinator.audit.moments import parse_moment, position_of, state_at

    moment = parse_moment(text)

    async def found(log: ReadableLog) -> Replayed:
        from_the_beginning(log)
        position = await position_of(log, moment)
        with Bar("replay", "records") as bar:
            return await state_at(log, position, progress=lambda done: bar.update(done, position))

    return read_log(target, file, found)


def _show_tasks(target: Target, replayed: Replayed, job_id: str, limit: int) -> None:
    from cli.views.jobs import tasks_table
    from cli.views.moments import tasks_of
    from coordinator.audit.subjects import Kind, not_found
    from hivefold.ids import JobId

    job = replayed.state.jobs.get(JobId(job_id))
    if job is None:
        raise not_found(job_id, Kind.JOB)
    found = tasks_of(job)[:limit]
    show_many(target, "tasks", found, lambda: tasks_table(found))


def _compare(target: Target) -> int:
    """The fold of a live fleet's log against the coordinator's state."""
    head, replayed, seconds = target.ask(_live)
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


async def _live(fleet: Fleet) -> tuple[log_service_pb2.GetHeadResponse, Replayed, float]:
    """The live head with its digest, the fold of the log up to there, and how long that took."""
    import asyncio

    from coordinator.audit.moments import state_at

    clock = asyncio.get_running_loop().time
    head = await fleet.log.head(with_state_digest=True)
    began = clock()
    with Bar("replay", "records") as bar:
        replayed = await state_at(
            LiveLog(fleet), head.sequence, progress=lambda position: bar.update(position, head.sequence)
        )
    return head, replayed, clock() - began


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

"""`hivefold log replay`: rebuild the state from the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

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

    from coordinator.core.model import Job
    from coordinator.replay import Replayed
    from hivefold.client import Fleet
    from hivefold.v1 import log_service_pb2

_Answer = TypeVar("_Answer")


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
    if tasks:
        _show_tasks(target, _at(target, file, at, lambda log, moment: _job(log, moment, tasks)), limit)
        return Exit.OK
    from cli.views.moments import moment_plain, moment_view

    moment, jobs = _at(target, file, at, lambda log, moment: _newest(log, moment, limit))
    show_one(target, moment_plain(moment, jobs), lambda: moment_view(moment, jobs))
    return Exit.OK


def _at(
    target: Target, file: Path | None, text: str, question: Callable[[ReadableLog, Replayed], Awaitable[_Answer]]
) -> _Answer:
    """What `question` answers, given the log and the state at a moment."""
    from coordinator.audit.moments import parse_moment, position_of, state_at

    named = parse_moment(text or "end")

    async def answer(log: ReadableLog) -> _Answer:
        from_the_beginning(log)
        position = await position_of(log, named)
        with Bar("replay", "records") as bar:
            moment = await state_at(log, position, progress=lambda done: bar.update(done, position))
        return await question(log, moment)

    return read_log(target, file, answer)


async def _job(log: ReadableLog, moment: Replayed, job_id: str) -> Job:
    """A job as it was then, also when the state had let it go."""
    from coordinator.audit.subjects import Kind, not_found
    from coordinator.history import find_job
    from hivefold.ids import JobId

    state = moment.state
    job = state.jobs.get(JobId(job_id)) or await find_job(log, JobId(job_id), state)
    if job is None:
        raise not_found(job_id, Kind.JOB)
    return job


async def _newest(log: ReadableLog, moment: Replayed, limit: int) -> tuple[Replayed, list[Job]]:
    """The jobs that were submitted last; those that the state had let go are read from the log where it takes them."""
    from coordinator.history import past_jobs

    state = moment.state
    jobs = list(state.jobs.values())
    if state.retired_sequence and len(jobs) < limit:
        jobs += await past_jobs(log, state, limit - len(jobs))
    return moment, sorted(jobs, key=lambda job: -job.create_sequence)[:limit]


def _show_tasks(target: Target, job: Job, limit: int) -> None:
    from cli.views.jobs import tasks_table
    from cli.views.moments import tasks_of

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

"""`hivefold job`: submit jobs, follow them, fetch their output."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from cyclopts import App, Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from cli.address import Target, listed
from cli.labels import parse_labels
from cli.output import as_plain, note, show_many, show_one, write_json
from cli.submit import app as submit_app
from cli.submit import output_file, split_output
from cli.waiting import exit_for, save_output, wait_for
from hivefold.errors import InvalidRequestError

if TYPE_CHECKING:
    from hivefold.client import Fleet
    from hivefold.v1 import feed_pb2, job_pb2

State = Literal["pending", "running", "succeeded", "failed", "cancelled"]

_Item = TypeVar("_Item")

app = App(name="job", help="Submit jobs, follow them, fetch their output.")
app.command(submit_app)


@app.command
def ls(
    *,
    state: Annotated[list[State] | None, Parameter(negative=())] = None,
    label: Annotated[list[str] | None, Parameter(negative=())] = None,
    limit: PositiveInt = 50,
    target: Target = Target(),  # noqa: B008 - frozen
) -> None:
    """List jobs, newest first.

    Parameters
    ----------
    state
        Only jobs in this state; may be repeated.
    label
        Only jobs that carry NAME=VALUE; may be repeated.
    limit
        At most this many.
    """
    from cli.views.jobs import jobs_table
    from hivefold.v1 import job_pb2

    states = [job_pb2.JobState.Value(f"JOB_STATE_{name.upper()}") for name in state or ()]
    labels = parse_labels(label or ())
    missing: set[str] = set()

    async def newest(fleet: Fleet) -> list[job_pb2.Job]:
        tell = partial(missing.add, "some")
        return await listed(_first(fleet.jobs.list(states=states, labels=labels, on_incomplete=tell), limit))

    jobs = target.ask(newest)
    show_many(target, "jobs", jobs, lambda: jobs_table(jobs))
    if missing:
        note("jobs that ended long ago are still being read from the log: some are missing; list again in a while")
    if len(jobs) == limit and target.output == "text":
        note(f"the newest {limit}; more with --limit")


@app.command
def show(job_id: str, *, target: Target = Target()) -> None:  # noqa: B008 - frozen
    """Show one job.

    Parameters
    ----------
    job_id
        The job.
    """
    _show(target, target.ask(lambda fleet: fleet.jobs.get(job_id)))


@app.command
def tasks(job_id: str, *, limit: NonNegativeInt = 0, target: Target = Target()) -> None:  # noqa: B008 - frozen
    """List the tasks of a job: where each ran, in which attempt, for how long.

    Parameters
    ----------
    job_id
        The job.
    limit
        At most this many; 0: all.
    """
    from cli.views.jobs import tasks_table

    found = target.ask(lambda fleet: listed(_first(fleet.jobs.tasks(job_id), limit or sys.maxsize)))
    show_many(target, "tasks", found, lambda: tasks_table(found))


@app.command
def why(task: str, *, target: Target = Target()) -> None:  # noqa: B008 - frozen
    """Tell why a task waits: what is missing on each node; or why it does not wait.

    Parameters
    ----------
    task
        A job (its first task that waits), or a task as JOB/7.
    """
    from cli.views.jobs import why_view

    job_id, slash, index = task.partition("/")
    if slash and not index.isdecimal():
        raise InvalidRequestError(f"{task!r} names no task: give a job, or a task as {job_id or 'JOB'}/7")
    found = target.ask(lambda fleet: fleet.jobs.why(job_id, int(index) if slash else None))
    show_one(target, found, lambda: why_view(job_id, found))


@app.command
def watch(job_id: str, *, after: NonNegativeInt = 0, target: Target = Target()) -> int:  # noqa: B008 - frozen
    """Follow a job until it ends: an event a line, with -o json too. The exit code tells how it ended.

    Parameters
    ----------
    job_id
        The job.
    after
        Only events after this record.
    """

    async def follow(fleet: Fleet) -> job_pb2.Job:
        async for event in fleet.jobs.watch(job_id, after):
            _show_event(target, event)
        return await fleet.jobs.get(job_id)

    return exit_for(target.ask(follow))


@app.command
def wait(job_id: str, *, target: Target = Target()) -> int:  # noqa: B008 - frozen
    """Wait until a job has ended, with progress on a terminal. The exit code tells how it ended.

    Parameters
    ----------
    job_id
        The job.
    """
    job = target.ask(lambda fleet: wait_for(fleet, job_id))
    _show(target, job)
    return exit_for(job)


@app.command
def cancel(job_id: str, *, note: str = "", target: Target = Target()) -> None:  # noqa: B008 - frozen
    """Cancel a job.

    Parameters
    ----------
    job_id
        The job.
    note
        Why, for the record.
    """
    _show(target, target.ask(lambda fleet: fleet.jobs.cancel(job_id, note)))


@app.command
def erase(
    job_id: str,
    *,
    yes: Annotated[bool, Parameter(negative=())] = False,
    target: Target = Target(),  # noqa: B008 - frozen
) -> None:
    """Erase the data of a job that has ended: its uploaded input and its outputs, for good.

    What was asked, when, and who worked on it stays in the log; a file that nodes read by its path is left alone.

    Parameters
    ----------
    job_id
        The job.
    yes
        Do not ask first.
    """
    if not yes and not _confirmed(f"Erase the data of job {job_id} for good?"):
        raise InvalidRequestError(f"nothing was erased: say yes, or give --yes to erase the data of job {job_id}")
    _show(target, target.ask(lambda fleet: fleet.jobs.erase(job_id)))


def _confirmed(question: str) -> bool:
    """Whether somebody at a terminal agrees; nobody there does not."""
    if not sys.stdin.isatty():
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


@app.command(name="output")
def fetch_output(
    job_id: str,
    file: Path | None = None,
    *,
    output: Annotated[list[str], Parameter(name=("--output", "-o"), negative=())] = [],  # noqa: B006 - never changed
    address: str | None = None,
    dir: Path | None = None,  # noqa: A002 - the option's name
) -> None:
    """Fetch the output of a job that succeeded: one file, its rows in the order of the input.

    Parameters
    ----------
    job_id
        The job.
    file
        Where to write it; .npz, .npy or .csv tells the format. Without it JOB_ID.npz.
    output
        The same as FILE; or what is printed: text, json or jsonl. May be given twice.
    address
        The coordinator, host:port. Else HIVEFOLD_ADDRESS, else the fleet that `hivefold up` runs in --dir.
    dir
        Directory of a local fleet. Else HIVEFOLD_DIR, else ./.hivefold.
    """
    shown, named = split_output(output)
    if file and named:
        raise InvalidRequestError(f"two files are named, {file} and {named}: name one")
    path = named or output_file(file or Path(f"{job_id}.npz"))
    target = Target(output=shown, address=address, dir=dir)
    written = target.ask(lambda fleet: save_output(fleet, job_id, path))
    if target.output == "text":
        print(path)
    else:
        write_json({"jobId": job_id, "path": str(path), "sizeBytes": str(written)})


def _show(target: Target, job: job_pb2.Job) -> None:
    from cli.views.jobs import job_facts

    show_one(target, job, lambda: job_facts(job))


def _show_event(target: Target, event: feed_pb2.JobEvent) -> None:
    from cli.views.jobs import event_line

    if target.output == "text":
        print(event_line(event), flush=True)
    else:
        write_json(as_plain(event))


async def _first(items: AsyncIterator[_Item], count: int) -> AsyncIterator[_Item]:
    left = count
    async for item in items:
        yield item
        left -= 1
        if not left:
            return

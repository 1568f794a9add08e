"""`hivefold job submit`: one command for each kind of job."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, get_args

from cyclopts import App, Parameter
from cyclopts.types import NonNegativeFloat, NonNegativeInt, PositiveInt

from cli.address import Target
from cli.exits import Exit
from cli.labels import parse_labels
from cli.output import Format, note, show_one
from cli.progress import Bar
from cli.sizes import Size
from cli.waiting import exit_for, save_output, wait_for
from hivefold.errors import HivefoldError, InvalidRequestError

if TYPE_CHECKING:
    from hivefold.client import Fleet, JobOptions
    from hivefold.v1 import job_pb2

Priority = Literal["control", "interactive", "batch"]
SUFFIXES: Final = (".npz", ".npy", ".csv")

app = App(name="submit", help="Submit a job.")


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Asked:
    """What any job may say."""

    wait: bool = False
    """Wait until the job has ended; the exit code tells how."""
    priority: Priority = "batch"
    """Who goes first when there is more work than room."""
    label: Annotated[list[str] | None, Parameter(negative=())] = None
    """NAME=VALUE that the job carries; may be repeated."""
    timeout: NonNegativeFloat = 0.0
    """Seconds after which the job fails; 0: never."""
    request_id: str = ""
    """Names this request: repeating it gives the same job, not another one."""
    max_attempts: NonNegativeInt = 0
    """Attempts of a task that may fail before the job fails; 0: the default, 3."""
    needs_label: Annotated[list[str] | None, Parameter(negative=())] = None
    """NAME=VALUE that a node must carry; may be repeated."""
    needs_memory: Size = 0
    """Memory that a task needs, in bytes or as 512MiB, 2GiB; 0: derived from the model."""
    needs_gpus: NonNegativeInt = 0
    """GPUs that a node must have."""
    source: str = ""
    """Who asks, for the record; without it you at this machine."""
    response_subject: str = ""
    """NATS subject that gets the job's final event, as typed protobuf."""

    def options(self) -> JobOptions:
        """The same for the client. Raises InvalidRequestError."""
        from hivefold.client import JobOptions
        from hivefold.client.jobs import default_source
        from hivefold.v1 import job_pb2

        return JobOptions(
            source=self.source or default_source().replace("client/", "cli/", 1),
            priority=job_pb2.Priority.Value(f"PRIORITY_{self.priority.upper()}"),
            labels=parse_labels(self.label or ()),
            timeout_s=self.timeout,
            node_labels=parse_labels(self.needs_label or ()),
            memory_bytes=self.needs_memory,
            gpu_count=self.needs_gpus,
            max_attempts=self.max_attempts,
            response_subject=self.response_subject,
            request_id=self.request_id,
        )


@app.command
def infer(
    *,
    model: str,
    input_file: Annotated[Path, Parameter(name=("--input", "-i"))],
    output: Annotated[list[str], Parameter(name=("--output", "-o"), negative=())] = [],  # noqa: B006 - never changed
    by_reference: Annotated[bool, Parameter(negative=())] = False,
    outputs: str = "",
    member: str = "",
    nan: Literal["reject", "allow"] = "reject",
    cast: Annotated[bool, Parameter(negative=())] = False,
    task_target: NonNegativeFloat = 0.0,
    batch_rows: NonNegativeInt = 0,
    address: str | None = None,
    dir: Path | None = None,  # noqa: A002 - the option's name
    asked: Asked = Asked(),
) -> int:
    """Run every row of a file through a model.

    Parameters
    ----------
    model
        NAME for the latest version, NAME@VERSION or NAME@ALIAS.
    input_file
        The rows: .npy, .npz or .csv.
    output
        A file (.npz, .npy, .csv) that gets the job's output, for which the command then waits; or what is printed:
        text, json or jsonl. May be given twice.
    by_reference
        Nodes read the file where it is (.npy and uncompressed .npz); it is not uploaded.
    outputs
        The model's outputs that are wanted, with commas between them; without it all.
    member
        The array of a .npz that holds several.
    nan
        What to do with a row that holds NaN.
    cast
        Round values to the model's type where it cannot hold them all, as FP32 those of FP64.
    task_target
        Seconds that one task should take; 0: the default, 1.
    batch_rows
        Rows given to the model at once; 0: the node chooses.
    address
        The coordinator, host:port. Else HIVEFOLD_ADDRESS, else the fleet that `hivefold up` runs in --dir.
    dir
        Directory of a local fleet. Else HIVEFOLD_DIR, else ./.hivefold.
    """
    from hivefold.client import InferOptions

    shown, file = split_output(output)
    wanted = InferOptions(
        by_reference=by_reference,
        member=member,
        outputs=[name.strip() for name in outputs.split(",") if name.strip()],
        allow_nan=nan == "allow",
        cast=cast,
        target_task_s=task_target,
        batch_rows=batch_rows,
    )
    options = asked.options()
    target = Target(output=shown, address=address, dir=dir)

    async def submit(fleet: Fleet) -> job_pb2.Job:
        with Bar(input_file.name, "bytes") as bar:
            sending = replace(wanted, on_upload=bar.update)
            job = await fleet.jobs.submit_infer(model, input_file, infer=sending, options=options)
        return await follow(fleet, job, wait=asked.wait or file is not None, file=file)

    return _end(target, target.ask(submit), waited=asked.wait or file is not None)


@app.command
def probe(
    *,
    tasks: PositiveInt = 1,
    task_duration: NonNegativeFloat = 0.0,
    asked: Asked = Asked(),
    target: Target = Target(),  # noqa: B008 - frozen
) -> int:
    """Run tasks that do nothing, to measure and to test the fleet itself.

    Parameters
    ----------
    tasks
        How many.
    task_duration
        Seconds that each task sleeps.
    """
    options = asked.options()

    async def submit(fleet: Fleet) -> job_pb2.Job:
        job = await fleet.jobs.submit_probe(tasks, task_duration_s=task_duration, options=options)
        return await follow(fleet, job, wait=asked.wait, file=None)

    return _end(target, target.ask(submit), waited=asked.wait)


def split_output(values: list[str]) -> tuple[Format, Path | None]:
    """What --output asks for: how to print, and the file for the job's output. Raises InvalidRequestError."""
    shown: Format = "text"
    file: Path | None = None
    for value in values:
        formats = [name for name in get_args(Format) if name == value]
        if formats:
            shown = formats[0]
        else:
            file = output_file(Path(value))
    return shown, file


def output_file(path: Path) -> Path:
    """The same path, where a job's output can be written to it: asked before the job is. Raises InvalidRequestError."""
    if path.suffix.lower() not in SUFFIXES:
        raise InvalidRequestError(
            f"output {path}: give a file that ends in {', '.join(SUFFIXES)}, or one of text, json, jsonl"
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InvalidRequestError(f"output {path}: {path.parent} is no directory that can be written to; make it first")
    return path


async def follow(fleet: Fleet, job: job_pb2.Job, *, wait: bool, file: Path | None) -> job_pb2.Job:
    """The job once it has ended and its output, if there is one, is in the file; as it is without `wait`."""
    if not wait:
        return job
    note(f"submitted {job.job_id}")
    ended = await wait_for(fleet, job.job_id)
    if file is not None and exit_for(ended) is Exit.OK:
        try:
            await save_output(fleet, job.job_id, file)
        except (HivefoldError, OSError):
            note(f"job {job.job_id} succeeded, and keeps its output: hivefold job output {job.job_id} FILE")
            raise
        note(f"wrote {file}")
    return ended


def _end(target: Target, job: job_pb2.Job, *, waited: bool) -> int:
    """Prints the job; the exit code."""
    from cli.views.jobs import job_facts

    if waited or target.output != "text":
        show_one(target, job, lambda: job_facts(job))
    else:
        print(job.job_id)
        note(f"follow it with: hivefold job wait {job.job_id}")
    return exit_for(job) if waited else Exit.OK

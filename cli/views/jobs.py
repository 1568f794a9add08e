"""Jobs and tasks as people see them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.markup import escape

from cli import words
from cli.output import facts, table
from cli.views import tensors, times
from hivefold.v1 import error_pb2, event_pb2, feed_pb2, job_pb2, job_service_pb2

if TYPE_CHECKING:
    from rich.console import RenderableType

FINAL: Final = frozenset({job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED})
_STATE_STYLES: Final = {
    job_pb2.JOB_STATE_PENDING: "yellow",
    job_pb2.JOB_STATE_RUNNING: "cyan",
    job_pb2.JOB_STATE_SUCCEEDED: "green",
    job_pb2.JOB_STATE_FAILED: "bold red",
    job_pb2.JOB_STATE_CANCELLED: "magenta",
}


def state(job: job_pb2.Job) -> str:
    """Where the job stands, in words."""
    return job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()


def styled_state(job: job_pb2.Job) -> str:
    """The same as markup."""
    style = _STATE_STYLES.get(job.state)
    return f"[{style}]{state(job)}[/]" if style else state(job)


def kind(job: job_pb2.Job) -> str:
    """The kind of job: "infer", "probe"."""
    return job.spec.WhichOneof("kind") or "unknown"


def subject(job: job_pb2.Job) -> str:
    """What the job works on."""
    return tensors.ref(job.model) or f"{words.count(job.spec.probe.task_count)} tasks"


def unit(job: job_pb2.Job) -> str:
    """What progress is counted in."""
    return "tasks" if job.spec.HasField("probe") else "rows"


def done_ratio(job: job_pb2.Job) -> float:
    """How much is done, 0 to 1."""
    total = job.progress.rows_total
    return min(1.0, job.progress.rows_done / total) if total else 0.0


def seconds_taken(job: job_pb2.Job) -> float:
    """How long the job has taken, from its submit on, until its end or now."""
    if not job.create_time.seconds:
        return 0.0
    if job.end_time.seconds:
        return times.seconds_of(job.end_time) - times.seconds_of(job.create_time)
    return max(0.0, times.seconds_since(job.create_time))


def failure(why: error_pb2.Failure) -> str:
    """Why something failed, as plain text; empty when it did not."""
    reason = error_pb2.Reason.Name(why.reason).removeprefix("REASON_")
    return f"{reason}: {why.message}" if why.message or why.reason else ""


def jobs_table(jobs: Iterable[job_pb2.Job]) -> RenderableType:
    """A line for each job."""
    return table(
        ("job", "kind", "what", "state", "done", "tasks", "failed", "lost", "took", "created"),
        [_row(job) for job in jobs],
        right=("done", "tasks", "failed", "lost", "took"),
    )


def _row(job: job_pb2.Job) -> Sequence[str]:
    progress = job.progress
    return (
        job.job_id,
        kind(job),
        escape(subject(job)),
        styled_state(job),
        words.percent(done_ratio(job)),
        words.count(progress.tasks_succeeded),
        words.count(progress.attempts_failed) if progress.attempts_failed else "",
        words.count(progress.attempts_lost) if progress.attempts_lost else "",
        words.span(seconds_taken(job)),
        times.ago(job.create_time),
    )


def job_facts(job: job_pb2.Job) -> RenderableType:
    """All about one job."""
    spec, progress = job.spec, job.progress
    seconds = seconds_taken(job)
    return facts(
        [
            ("job", f"[bold]{job.job_id}[/]"),
            ("state", styled_state(job)),
            ("failure", escape(failure(job.failure)) if job.HasField("failure") else ""),
            ("erased", times.ago(job.erase_time) if job.HasField("erase_time") else ""),
            ("kind", kind(job)),
            *_kind_facts(job),
            ("done", f"{words.count(progress.rows_done)} of {words.count(progress.rows_total)} {unit(job)}"),
            ("tasks", _task_counts(progress)),
            (
                "took",
                f"{words.span(seconds)}, {words.rate(progress.rows_done / seconds, unit(job))}" if seconds else "",
            ),
            ("created", _moment(job)),
            ("ended", times.exact(job.end_time)),
            ("deadline", times.exact(job.deadline_time)),
            ("priority", job_pb2.Priority.Name(spec.priority).removeprefix("PRIORITY_").lower()),
            ("labels", escape(words.pairs(spec.labels))),
            ("source", escape(spec.source)),
            ("request id", job.request_id),
            ("record", words.count(job.sequence)),
        ]
    )


def _kind_facts(job: job_pb2.Job) -> list[tuple[str, str]]:
    if not job.spec.HasField("infer"):
        return []
    data = job.spec.infer.data_set
    what = f"{words.count(data.row_count)} rows of {tensors.data_type(data.data_type)}{tensors.shape(data.row_shape)}"
    where = f"file {data.file.path}" if data.HasField("file") else "stored in the fleet"
    return [
        ("model", tensors.ref(job.model)),
        ("input", escape(f"{what}, {where}" + (f", from {data.origin}" if data.origin else ""))),
        ("output", escape(", ".join(tensors.tensor(output) for output in job.outputs))),
    ]


def _task_counts(progress: job_pb2.JobProgress) -> str:
    counts = (
        ("planned", progress.tasks_planned),
        ("with nodes", progress.tasks_running),
        ("succeeded", progress.tasks_succeeded),
        ("attempts failed", progress.attempts_failed),
        ("attempts lost", progress.attempts_lost),
    )
    return ", ".join(f"{words.count(number)} {name}" for name, number in counts if number)


def _moment(job: job_pb2.Job) -> str:
    return f"{times.exact(job.create_time)} ({times.ago(job.create_time)})" if job.create_time.seconds else ""


def tasks_table(tasks: Iterable[job_pb2.Task]) -> RenderableType:
    """A line for each task."""
    rows = [
        (
            str(task.task),
            job_pb2.TaskState.Name(task.state).removeprefix("TASK_STATE_").lower(),
            str(task.attempt or ""),
            task.node_id,
            words.span(task.duration.ToTimedelta().total_seconds()) if task.HasField("duration") else "",
            f"{words.count(task.first_row)} +{words.count(task.row_count)}" if task.row_count else "",
        )
        for task in tasks
    ]
    return table(("task", "state", "attempt", "node", "took", "rows"), rows, right=("task", "attempt", "took", "rows"))


def why_view(job_id: str, why: job_service_pb2.WhyTaskResponse) -> RenderableType:
    """Why a task stands where it stands: the answer, then node by node."""
    standing = job_service_pb2.TaskStanding.Name(why.standing).removeprefix("TASK_STANDING_").lower().replace("_", " ")
    told = facts(
        [
            ("task", f"[bold]{job_id}/{why.task}[/]"),
            ("standing", standing),
            ("why", escape(why.message)),
            ("attempts so far", str(why.attempt or "")),
            ("next attempt", times.exact(why.retry_time)),
        ]
    )
    rows = [(rank.node_id, "[green]could take it[/]", f"{rank.free_slots} free slots", "") for rank in why.candidates]
    for refusal in why.refusals:
        reason = event_pb2.RefusalReason.Name(refusal.reason).removeprefix("REFUSAL_REASON_")
        rows.append((refusal.node_id, "[yellow]does not take it[/]", escape(refusal.detail), f"[dim]{reason}[/]"))
    if not rows:
        return told
    return Group(told, "", table(("node", "", "because", "reason"), rows))


def event_line(event: feed_pb2.JobEvent) -> str:
    """One event of a job in a line, as plain text."""
    name = feed_pb2.JobEventType.Name(event.type).removeprefix("JOB_EVENT_TYPE_").lower().replace("_", " ")
    parts = [times.clock_time(event.event_time), f"{event.sequence:>7}", f"{name:<15}"]
    if event.tasks:
        parts.append(f"{_numbers(event.tasks)}")
    if event.node_id:
        parts.append(f"on {event.node_id}")
    if event.HasField("failure"):
        parts.append(failure(event.failure))
    return "  ".join(parts)


def _numbers(tasks: Sequence[int]) -> str:
    """Indexes of tasks; runs are abbreviated: "0-3, 7"."""
    runs: list[list[int]] = []
    for task in tasks:
        if runs and task == runs[-1][1] + 1:
            runs[-1][1] = task
        else:
            runs.append([task, task])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:8]]
    return (
        f"{len(tasks)} tasks ({', '.join(shown)}{', ...' if len(runs) > 8 else ''})"
        if len(tasks) > 1
        else f"task {tasks[0]}"
    )

"""The state at a moment of the log, as people and programs see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.markup import escape
from rich.text import Text

from cli import words
from cli.output import as_plain, facts, table
from cli.views import jobs, models, nodes, times
from coordinator.core.model import Job, Model, State
from coordinator.model_views import alias_view, residency_view
from coordinator.replay import Replayed
from coordinator.views import job_view, node_view, task_view
from coordinator.wire.values import model_to_proto
from hivefold.v1 import fleet_pb2, job_pb2, model_pb2
from hivefold.v1.model_service_pb2 import GetModelResponse

if TYPE_CHECKING:
    from rich.console import RenderableType


def moment_view(replayed: Replayed, shown: Sequence[Job]) -> RenderableType:
    """Where the log stood, then nodes, models and the newest jobs."""
    state = replayed.state
    parts: list[RenderableType] = [
        facts(
            [
                ("after record", f"[bold]{words.count(state.sequence)}[/]"),
                ("time", f"{times.stamp(state.time_us)}Z" if state.time_us else ""),
                ("term", f"{state.term}, led by {escape(state.coordinator_id)}" if state.term else ""),
                ("last hash", replayed.head_hash.hex()),
                ("state", replayed.digest()),
            ]
        )
    ]
    if state.nodes:
        parts += _section("nodes", _nodes([node_view(node) for _, node in sorted(state.nodes.items())]))
    if state.models:
        parts += _section(
            "models", models.models_table([model_to_proto(m) for _, m in sorted(state.models.items())], _aliases(state))
        )
    if shown:
        total = state.ended_total + len(state.open_jobs)
        more = f", the newest {len(shown)} of {words.count(total)}" if len(shown) < total else ""
        parts += _section(f"jobs{more}", _jobs([job_view(job) for job in shown], state.time_us))
    return Group(*parts)


def moment_plain(replayed: Replayed, shown: Sequence[Job]) -> dict[str, Any]:
    """The same for programs: nodes, models and jobs in protobuf's JSON mapping."""
    state = replayed.state
    return {
        "sequence": str(state.sequence),
        "time": times.iso(state.time_us) if state.time_us else "",
        "term": str(state.term),
        "coordinatorId": state.coordinator_id,
        "hash": replayed.head_hash.hex(),
        "stateDigest": replayed.digest(),
        "nodes": [as_plain(node_view(node)) for _, node in sorted(state.nodes.items())],
        "models": [as_plain(model_to_proto(model)) for _, model in sorted(state.models.items())],
        "aliases": [as_plain(alias) for alias in _aliases(state)],
        "residencies": [as_plain(residency_view(state, ref)) for ref in sorted(state.residencies)],
        "jobs": [as_plain(job_view(job)) for job in shown],
    }


def as_of(state: State, model: Model) -> GetModelResponse:
    """A model version with its aliases and where it is to be kept, in a state."""
    return GetModelResponse(
        model=model_to_proto(model),
        aliases=[alias for alias in _aliases(state) if (alias.name, alias.version) == (model.name, model.version)],
        residency=residency_view(state, model.ref) if model.ref in state.residencies else None,
    )


def _aliases(state: State) -> list[model_pb2.ModelAlias]:
    return [alias_view(alias) for _, alias in sorted(state.aliases.items())]


def tasks_of(job: Job) -> list[job_pb2.Task]:
    """Every planned task of a job."""
    return [task_view(job, task) for task in range(job.planned)]


def _section(title: str, content: RenderableType) -> list[RenderableType]:
    return [Text(), Text(title, style="bold"), content]


def _nodes(found: Sequence[fleet_pb2.Node]) -> RenderableType:
    rows = [
        (
            node.spec.node_id,
            nodes.styled_state(node),
            str(node.spec.slot_count),
            str(node.attempts_outstanding),
            words.count(node.tasks_succeeded),
            str(len(node.loaded_models)),
            escape(words.pairs(node.spec.labels)),
        )
        for node in found
    ]
    headings = ("node", "state", "slots", "busy", "tasks", "models", "labels")
    return table(headings, rows, right=("slots", "busy", "tasks", "models"))


def _jobs(found: Sequence[job_pb2.Job], now_us: int) -> RenderableType:
    rows = [
        (
            job.job_id,
            jobs.kind(job),
            escape(jobs.subject(job)),
            jobs.styled_state(job),
            words.percent(jobs.done_ratio(job)),
            f"{words.count(job.progress.tasks_succeeded)}/{words.count(job.progress.tasks_planned)}",
            words.count(job.progress.tasks_running) if job.progress.tasks_running else "",
            words.count(job.progress.attempts_failed) if job.progress.attempts_failed else "",
            words.count(job.progress.attempts_lost) if job.progress.attempts_lost else "",
            words.span(_age(job, now_us)),
        )
        for job in found
    ]
    headings = ("job", "kind", "what", "state", "done", "tasks", "with nodes", "failed", "lost", "for")
    return table(headings, rows, right=("done", "tasks", "with nodes", "failed", "lost", "for"))


def _age(job: job_pb2.Job, now_us: int) -> float:
    """Seconds from the submit to the end, or to the moment."""
    end = times.seconds_of(job.end_time) if job.end_time.seconds else now_us / 1e6
    return max(0.0, end - times.seconds_of(job.create_time))

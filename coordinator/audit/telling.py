"""Facts in words: what an event says to a person. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, assert_never

from coordinator.core import events as ev
from coordinator.core.model import DataSet, Failure, InferSpec, JobSpec, Model, Needs, NodeSpec, Pairs, ProbeSpec
from hivefold.ids import ModelRef
from hivefold.v1 import command_pb2

_RUNS_SHOWN: Final = 6


def cause(command: command_pb2.Command) -> str:
    """Upon what a record was decided: "submit", "report of node-1", "silence of node-2"."""
    name = command.WhichOneof("body")
    match name:
        case "report_outcomes" | "observe_node" | "report_silence" | "leave_node":
            return f"{_CAUSES[name]} of {getattr(command, name).node_id}"
        case "join_node":
            return f"join of {command.join_node.spec.node_id}"
        case None:
            return "unknown command"
        case _:
            return _CAUSES.get(name, name.replace("_", " "))


_CAUSES: Final = {
    "start_term": "take-over",
    "register_model": "registration",
    "submit_job": "submit call",
    "cancel_job": "cancel call",
    "report_outcomes": "report",
    "place_tasks": "placement",
    "record_inferences": "inference",
    "expire_jobs": "deadline",
    "observe_node": "heartbeat",
    "report_silence": "silence",
    "leave_node": "leave",
    "drain_node": "drain call",
    "undrain_node": "undrain call",
}


def asked(spec: JobSpec, model: ModelRef) -> str:
    """What a job asks for, in a line."""
    match spec.kind:
        case InferSpec(data_set=data):
            return f"infer {count(data.row_count, 'row')} with {model}"
        case ProbeSpec(task_count=tasks):
            return f"probe with {count(tasks, 'task')}"
        case other:
            assert_never(other)


def job_facts(event: ev.JobSubmitted) -> tuple[tuple[str, str], ...]:
    """What was asked, by whom, under which conditions; names with values, empty ones left out."""
    spec, needs = event.spec, event.spec.needs
    data = spec.kind.data_set if isinstance(spec.kind, InferSpec) else None
    known = (
        ("asked", asked(spec, event.model)),
        ("by", spec.source),
        ("request", event.request_id),
        ("priority", spec.priority.lower()),
        ("labels", pairs(spec.labels)),
        ("input", _input(data) if data else ""),
        ("needs labels", pairs(needs.node_labels)),
        ("needs memory", f"{needs.memory_bytes:,} bytes" if needs.memory_bytes else ""),
        ("needs GPUs", str(needs.gpu_count or "")),
        ("most attempts", str(spec.max_attempts or "")),
        ("answer to", spec.response_subject),
        ("trace", trace_id(event.traceparent)),
    )
    return tuple((name, value) for name, value in known if value)


def _input(data: DataSet) -> str:
    where = f"file {data.path}" if data.path else f"blob {short(data.content.root)}"
    return f"{data.row_count:,} rows of {data.data_type}{list(data.row_shape)}, {where}"


def model_text(model: Model) -> str:
    """A model version in a line."""
    inputs = ", ".join(f"{tensor.name} {tensor.data_type}{list(tensor.shape)}" for tensor in model.inputs)
    outputs = ", ".join(f"{tensor.name} {tensor.data_type}{list(tensor.shape)}" for tensor in model.outputs)
    return f"{model.ref}, {model.artifact.size_bytes:,} bytes, {inputs} -> {outputs}"


def node_text(spec: NodeSpec) -> str:
    """What a node says of itself, in a line."""
    parts = [
        count(spec.slot_count, "slot"),
        f"{spec.cpu_count} CPUs" if spec.cpu_count else "",
        f"{spec.memory_bytes / 2**30:.1f} GiB" if spec.memory_bytes else "",
        count(len(spec.gpus), "GPU") if spec.gpus else "",
        pairs(spec.labels),
        f"on {spec.host_name}" if spec.host_name else "",
        f"version {spec.code_version}" if spec.code_version else "",
        f"boot {spec.boot_id}",
    ]
    return ", ".join(part for part in parts if part)


def placement(reason: ev.PlacementReason) -> tuple[str, ...]:
    """Why a node was chosen: the candidates best first, and each that was refused with its reason."""
    best = [f"{rank.node_id} ({_rank(rank)})" for rank in reason.ranking]
    chosen = (f"candidates, best first: {', '.join(best)}",) if best else ()
    return (*chosen, *(refusal(refused) for refused in reason.refusals))


def refusal(refused: ev.NodeRefusal) -> str:
    """A node that was not chosen, and why."""
    return f"refused {refused.node_id}: {refused.detail or refused.reason.lower()} ({refused.reason})"


def _rank(rank: ev.NodeRank) -> str:
    parts = [count(rank.free_slots, "free slot"), "model loaded" if rank.model_loaded else ""]
    return ", ".join(part for part in parts if part)


def failure(why: Failure) -> str:
    """Why something failed."""
    return f"{why.reason}: {why.message}" if why.message else str(why.reason)


def tasks(indexes: Sequence[int], attempts: Sequence[int] = ()) -> str:
    """Tasks as runs, "tasks 0-3, 7"; with the number of the attempt where it is not the first."""
    runs: list[list[int]] = []
    for index in indexes:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:_RUNS_SHOWN]]
    more = f" and {len(runs) - _RUNS_SHOWN} more ranges" if len(runs) > _RUNS_SHOWN else ""
    again = sorted(set(attempts) - {1})
    tries = f", attempt {'/'.join(map(str, again))}" if again else ""
    name = "task" if len(indexes) == 1 else "tasks"
    return f"{name} {', '.join(shown)}{more}{tries}"


def count(number: int, noun: str) -> str:
    """ "1 task", "12 tasks"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def span(us: float) -> str:
    """A duration in the unit that fits."""
    if us < 1000:
        return f"{us:.0f} us"
    if us < 1_000_000:
        return f"{us / 1000:.1f} ms"
    return f"{us / 1_000_000:.2f} s"


def needed(wanted: Needs) -> str:
    """What a node must have, in one line."""
    memory = f"{wanted.memory_bytes:,} bytes of memory" if wanted.memory_bytes else ""
    return joined((pairs(wanted.node_labels), memory, count(wanted.gpu_count, "GPU") if wanted.gpu_count else ""))


def pairs(values: Pairs) -> str:
    """Labels."""
    return " ".join(f"{key}={value}" for key, value in values)


def short(digest: str) -> str:
    """The first digits of a digest: enough to tell two apart by eye."""
    return digest[:12]


def trace_id(traceparent: str) -> str:
    """The trace id in a W3C traceparent; empty where there is none."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) == 4 else ""


def joined(parts: Iterable[str]) -> str:
    """What is not empty, with commas."""
    return ", ".join(part for part in parts if part)

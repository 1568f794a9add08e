"""Model passports as people see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rich.markup import escape

from cli import words
from cli.output import facts
from cli.views import tensors
from hivefold.v1 import passport_pb2 as pb

if TYPE_CHECKING:
    from rich.console import RenderableType

_COLOURS: Final = {
    pb.SAFETY_VERDICT_SAFE: "bold green",
    pb.SAFETY_VERDICT_UNKNOWN: "bold yellow",
    pb.SAFETY_VERDICT_SUSPICIOUS: "bold yellow",
    pb.SAFETY_VERDICT_UNSAFE: "bold red",
}
_SHOWN: Final = 12
"""Inputs, outputs and findings that are shown to people; JSON has all."""


def passport_facts(passport: pb.ModelPassport, path: str) -> RenderableType:
    """All about a model file."""
    return facts([("model", f"[bold]{escape(path)}[/]"), *lines(passport)])


def lines(passport: pb.ModelPassport) -> Iterator[tuple[str, str]]:
    """Names and values; empty ones are left out by whoever prints."""
    yield "verdict", _verdict(passport.safety)
    yield "format", escape(_joined(passport.format, passport.format_version))
    yield "framework", escape(passport.framework)
    yield "architecture", escape(_joined(passport.architecture, passport.architecture_name))
    yield "task", pb.TaskFamily.Name(passport.task).removeprefix("TASK_FAMILY_").lower() if passport.task else ""
    if passport.HasField("parameter_count"):
        yield "parameters", _parameters(passport)
    yield "size", words.size(passport.size_bytes)
    yield "inputs", _ports(passport.inputs)
    yield "outputs", _ports(passport.outputs)
    yield from _needs(passport.needs)
    yield "notes", escape("\n".join(passport.notes))


def _verdict(safety: pb.ModelSafety) -> str:
    name = pb.SafetyVerdict.Name(safety.verdict).removeprefix("SAFETY_VERDICT_").lower()
    shown = [f"[{_COLOURS.get(safety.verdict, 'bold')}]{name}[/]"]
    shown += [f"- {escape(f'{finding.detail} ({finding.place})')}" for finding in safety.findings[:_SHOWN]]
    if len(safety.findings) > _SHOWN:
        shown.append(f"- and {len(safety.findings) - _SHOWN} more")
    shown += [f"- not covered: {escape(text)}" for text in safety.coverage]
    return "\n".join(shown)


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _parameters(passport: pb.ModelPassport) -> str:
    size = pb.ModelComplexity.Name(passport.needs.complexity).removeprefix("MODEL_COMPLEXITY_").lower()
    kinds = ", ".join(escape(precision.data_type) for precision in passport.precisions[:4])
    return f"{words.count(passport.parameter_count)} ({_joined(size, kinds)})"


def _ports(ports: Sequence[pb.ModelPort]) -> str:
    shown = [f"{port.name} {port.data_type}{tensors.shape(port.shape)}" for port in ports[:_SHOWN]]
    more = [f"and {len(ports) - _SHOWN} more"] if len(ports) > _SHOWN else []
    return escape("\n".join([*shown, *more]))


def _needs(needs: pb.ModelNeeds) -> Iterator[tuple[str, str]]:
    if needs.HasField("weight_bytes"):
        yield "weights", words.size(needs.weight_bytes)
    if needs.HasField("activation_bytes"):
        rows = f"{words.count(needs.batch_rows)} row{'s' * (needs.batch_rows != 1)}"
        yield "activations", f"{words.size(needs.activation_bytes)} for {rows}"
    if needs.HasField("kv_cache_token_bytes"):
        whole = words.size(needs.kv_cache_token_bytes * needs.context_tokens)
        context = f", {whole} for {words.count(needs.context_tokens)}" if needs.context_tokens else ""
        yield "cache", f"{words.size(needs.kv_cache_token_bytes)} a token{context}"
    if needs.HasField("memory_bytes"):
        cores = f"{needs.cores} core{'s' * (needs.cores != 1)}"
        memory, gpu = words.size(needs.memory_bytes), words.size(needs.gpu_memory_bytes)
        yield "needs", f"{memory} memory or {gpu} of a GPU, {cores}"

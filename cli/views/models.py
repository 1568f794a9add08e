"""Models as people see them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from rich.markup import escape

from cli import words
from cli.output import as_plain, facts, table
from cli.views import passports, tensors, times
from hivefold.v1 import model_pb2
from hivefold.v1 import model_service_pb2 as pb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hivefold.v1.event_pb2 import NodeRefusal


_SHOWN: Final = frozenset({"size", "inputs", "outputs"})
"""What a model's own fields say as well."""
_COLOURS: Final = {"loaded": "green", "failed": "red", "ordered": "yellow"}


def models_table(models: Iterable[model_pb2.Model], aliases: Iterable[model_pb2.ModelAlias] = ()) -> RenderableType:
    """A line for each model version, with the aliases that stand for it."""
    names: dict[tuple[str, int], list[str]] = {}
    for alias in aliases:
        names.setdefault((alias.name, alias.version), []).append(alias.alias)
    rows = [
        (
            tensors.ref(model),
            ", ".join(names.get((model.name, model.version), ())),
            model.platform,
            words.size(model.artifact.size_bytes),
            escape(", ".join(tensors.tensor(spec) for spec in model.inputs)),
            escape(", ".join(tensors.tensor(spec) for spec in model.outputs)),
            model.digest[:12],
            times.ago(model.create_time),
        )
        for model in models
    ]
    return table(
        ("model", "aliases", "platform", "size", "inputs", "outputs", "digest", "registered"), rows, right=("size",)
    )


def model_facts(model: model_pb2.Model, found: pb.GetModelResponse | None = None) -> RenderableType:
    """All about one model version; `found` also says how it is named and kept."""
    told = model.provenance
    return facts(
        [
            ("model", f"[bold]{tensors.ref(model)}[/]"),
            ("platform", model.platform),
            ("size", words.size(model.artifact.size_bytes)),
            ("digest", model.digest),
            ("inputs", escape("\n".join(tensors.tensor(spec) for spec in model.inputs))),
            ("outputs", escape("\n".join(tensors.tensor(spec) for spec in model.outputs))),
            *(line for line in passports.lines(model.passport) if model.HasField("passport") and line[0] not in _SHOWN),
            ("labels", escape(words.pairs(model.labels))),
            ("description", escape(told.description)),
            ("licence", escape(told.licence)),
            ("source", escape(told.source)),
            ("registered by", escape(told.author)),
            ("registered", f"{times.exact(model.create_time)} ({times.ago(model.create_time)})"),
            ("aliases", "\n".join(_moved(alias) for alias in found.aliases) if found else ""),
            *(_residency(found.residency) if found and found.HasField("residency") else ()),
        ]
    )


def described(found: pb.GetModelResponse) -> dict[str, Any]:
    """A model version for programs: its own fields, then how it is named and kept."""
    plain = as_plain(found.model)
    plain["aliases"] = [as_plain(alias) for alias in found.aliases]
    plain["residency"] = as_plain(found.residency) if found.HasField("residency") else None
    return plain


def alias_facts(alias: model_pb2.ModelAlias) -> RenderableType:
    """One alias."""
    return facts([("alias", f"[bold]{alias.name}@{alias.alias}[/]"), ("stands for", _moved(alias))])


def residency_facts(residency: pb.Residency) -> RenderableType:
    """Where a version is to be kept loaded, and why nodes are missing."""
    return facts([("model", f"[bold]{residency.model}[/]"), *_residency(residency)])


def replicas_table(replicas: Iterable[pb.Replica]) -> RenderableType:
    """A line for each model version on each node."""
    rows = [
        (replica.model, replica.node_id, _replica_state(replica), _kept(replica), escape(_reason(replica)))
        for replica in replicas
    ]
    return table(("model", "node", "state", "kept", ""), rows)


def _moved(alias: model_pb2.ModelAlias) -> str:
    before = f", before version {alias.previous_version}" if alias.previous_version else ""
    why = f": {escape(alias.note)}" if alias.note else ""
    return f"{alias.alias}: version {alias.version} since {times.exact(alias.move_time)}{before}{why}"


def _residency(residency: pb.Residency) -> list[tuple[str, str]]:
    if not residency.replica_count:
        return [("kept on", "no node: loaded when it is asked for")]
    needs = residency.needs
    wanted = [
        words.pairs(needs.node_labels),
        words.size(needs.memory_bytes) if needs.memory_bytes else "",
        f"{needs.gpu_count} GPUs" if needs.gpu_count else "",
    ]
    return [
        ("kept on", f"{', '.join(residency.node_ids) or 'no node yet'} ({residency.loaded_count} loaded)"),
        ("replicas", f"{staying(residency)} of {residency.replica_count}{', pinned' if residency.pinned else ''}"),
        ("needs", escape(", ".join(part for part in wanted if part))),
        ("not to stay", escape(_refusals(r for r in residency.refusals if r.node_id in residency.node_ids))),
        ("not on", escape(_refusals(r for r in residency.refusals if r.node_id not in residency.node_ids))),
    ]


def staying(residency: pb.Residency) -> int:
    """How many of the nodes that keep a version are to go on: the others do until there are enough of these."""
    return len(set(residency.node_ids) - {refusal.node_id for refusal in residency.refusals})


def _refusals(refusals: Iterable[NodeRefusal]) -> str:
    return "\n".join(f"{refusal.node_id}: {refusal.detail}" for refusal in refusals)


def _replica_state(replica: pb.Replica) -> str:
    state = pb.ReplicaState.Name(replica.state).removeprefix("REPLICA_STATE_").lower()
    if replica.state == pb.REPLICA_STATE_FETCHING and replica.bytes_total:
        return f"{state} {words.percent(replica.bytes_done / replica.bytes_total)}"
    return f"[{_COLOURS[state]}]{state}[/]" if state in _COLOURS else state


def _kept(replica: pb.Replica) -> str:
    return "pinned" if replica.pinned else "yes" if replica.kept else "on demand"


def _reason(replica: pb.Replica) -> str:
    return replica.failure.message if replica.HasField("failure") else ""

"""Aliases, residencies and replicas as clients see them: messages made from the state and from heartbeats."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

from coordinator.core.decide_replicas import loaded_on, why_short
from coordinator.core.model import Model, Node, State
from coordinator.core.registered import Alias, Residency
from coordinator.wire.placement import refusal_to_proto
from coordinator.wire.times import timestamp
from coordinator.wire.values import failure_to_proto, needs_to_proto
from hivefold import limits
from hivefold.ids import Digest, ModelRef, NodeId
from hivefold.v1 import model_pb2, work_pb2
from hivefold.v1 import model_service_pb2 as pb


class Hearing(Protocol):
    """What was last heard of nodes."""

    def models_in_progress(self, node_id: NodeId) -> Sequence[work_pb2.ModelProgress]:
        """The models that the node fetches, loads or could not load."""
        ...


def alias_view(alias: Alias) -> model_pb2.ModelAlias:
    """An alias."""
    return model_pb2.ModelAlias(
        name=alias.name,
        alias=alias.alias,
        version=alias.version,
        previous_version=alias.previous_version,
        move_time=timestamp(alias.time_us),
        note=alias.note,
        sequence=alias.sequence,
    )


def residency_view(state: State, ref: ModelRef) -> pb.Residency:
    """Where a version is to be kept loaded; without any wish an empty one. Where nodes are missing, why."""
    residency = state.residencies.get(ref)
    if residency is None:
        return pb.Residency(model=ref)
    return pb.Residency(
        model=ref,
        replica_count=residency.replica_count,
        pinned=residency.pinned,
        needs=needs_to_proto(residency.needs),
        node_ids=residency.nodes,
        loaded_count=len(loaded_on(state, residency)),
        refusals=[refusal_to_proto(refusal) for refusal in why_short(state, residency)[: limits.PAGE_DEFAULT]],
        set_time=timestamp(residency.time_us),
    )


def replicas(
    state: State, hearing: Hearing, refs: Collection[ModelRef], after: str = ""
) -> Iterator[tuple[str, pb.Replica]]:
    """Versions on nodes, in the order of their keys from behind `after`: kept, loaded on demand, or failed."""
    by_digest: dict[Digest, list[Model]] = {}
    for ref, model in sorted(state.models.items()):
        if ref in refs:
            by_digest.setdefault(model.digest, []).append(model)
    found: dict[str, pb.Replica] = {}
    for node_id, node in state.nodes.items():
        if node.state.gone:
            continue
        progress = {entry.digest: entry for entry in hearing.models_in_progress(node_id)}
        for model in _models_on(state, node, by_digest, progress):
            key = f"{model.name}@{model.version:09d}/{node_id}"
            if key > after:
                found[key] = _replica(model, node, state.residencies.get(model.ref), progress.get(model.digest))
    return iter(sorted(found.items()))


def _models_on(
    state: State,
    node: Node,
    by_digest: Mapping[Digest, Sequence[Model]],
    progress: Mapping[str, work_pb2.ModelProgress],
) -> Iterator[Model]:
    """What is to be said of a node: of versions with one content those that it keeps, or else the last."""
    node_id = node.spec.node_id
    for digest, models in by_digest.items():
        residencies = [(model, state.residencies.get(model.ref)) for model in models]
        kept = [model for model, residency in residencies if residency and _concerns(residency, node_id)]
        if kept:
            yield from kept
        elif digest in node.loaded_models or digest in progress:
            yield models[-1]


def _concerns(residency: Residency, node_id: NodeId) -> bool:
    return node_id in residency.nodes or any(failure.node_id == node_id for failure in residency.failures)


def _replica(
    model: Model, node: Node, residency: Residency | None, progress: work_pb2.ModelProgress | None
) -> pb.Replica:
    node_id = node.spec.node_id
    kept = residency is not None and node_id in residency.nodes
    replica = pb.Replica(
        model=model.ref,
        node_id=node_id,
        state=pb.REPLICA_STATE_ORDERED,
        kept=kept,
        pinned=kept and residency is not None and residency.pinned,
        bytes_total=model.artifact.size_bytes,
    )
    failed = next((f for f in residency.failures if f.node_id == node_id), None) if residency and not kept else None
    if model.digest in node.loaded_models:
        replica.state, replica.bytes_done = pb.REPLICA_STATE_LOADED, model.artifact.size_bytes
    elif progress is not None and progress.HasField("failure"):
        replica.state = pb.REPLICA_STATE_FAILED
        replica.failure.CopyFrom(progress.failure)
    elif progress is not None:
        fetched = progress.bytes_done >= progress.bytes_total
        replica.state = pb.REPLICA_STATE_LOADING if fetched else pb.REPLICA_STATE_FETCHING
        replica.bytes_done, replica.bytes_total = progress.bytes_done, progress.bytes_total
    elif failed is not None:
        replica.state = pb.REPLICA_STATE_FAILED
        replica.failure.CopyFrom(failure_to_proto(failed.failure))
    return replica

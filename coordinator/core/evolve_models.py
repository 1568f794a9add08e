"""How facts about registered models change the state: aliases, residencies, removals. Total and pure, as evolve.py."""

from __future__ import annotations

from typing import assert_never

from immutables import Map

from coordinator.core import model_events as mev
from coordinator.core.model import Model, Node, State
from coordinator.core.registered import Alias, ModelRequest, ReplicaFailure, Residency
from hivefold.ids import ModelName, ModelRef, NodeId, RequestId, alias_ref
from hivefold.models.limits import MODEL_REQUESTS_KEPT, REPLICA_RETRY_MAX_US, REPLICA_RETRY_US


def model_registered(state: State, model: Model) -> State:
    """A version was registered. Bytes that were to go are needed again."""
    root = model.artifact.root
    return state._replace(
        models=state.models.set(model.ref, model),
        latest=state.latest.set(model.name, max(model.version, state.latest.get(model.name, 0))),
        discarded=state.discarded.delete(root) if root in state.discarded else state.discarded,
    )


def model_changed(state: State, event: mev.ModelChange) -> State:
    """Folds one event."""
    match event:
        case mev.AliasMoved():
            state = _asked(state, event.request_id, alias_ref(event.name, event.alias), (str(event.version),))
            alias = Alias(
                name=event.name,
                alias=event.alias,
                version=event.version,
                previous_version=event.previous_version,
                time_us=state.time_us,
                sequence=state.sequence,
                note=event.note,
            )
            return state._replace(aliases=state.aliases.set(alias.ref, alias))
        case mev.AliasRemoved():
            ref = alias_ref(event.name, event.alias)
            state = _asked(state, event.request_id, ref, ("0",))
            return state._replace(aliases=state.aliases.delete(ref)) if ref in state.aliases else state
        case mev.ModelRemoved():
            return _model_removed(_asked(state, event.request_id, event.model, ("removed",)), event.model)
        case mev.ArtifactRemoved(root):
            return state._replace(discarded=state.discarded.delete(root)) if root in state.discarded else state
        case mev.ResidencySet():
            return _residency_set(_asked(state, event.request_id, event.model, residency_values(event)), event)
        case mev.ReplicasPlaced(model, node_ids):
            return _with_nodes(state, model, added=node_ids)
        case mev.ReplicasReleased(model, node_ids):
            return _with_nodes(state, model, taken=node_ids)
        case mev.ReplicaFailed():
            return _replica_failed(state, event)
        case _:
            assert_never(event)


def residency_values(event: mev.ResidencySet) -> tuple[str, ...]:
    """What a residency was set to, each as text: what a repeat of the request is compared with."""
    return str(event.replica_count), str(event.pinned), repr(event.needs)


def _asked(state: State, request_id: RequestId, subject: str, values: tuple[str, ...]) -> State:
    if not request_id:
        return state
    requests = (*state.model_requests, ModelRequest(request_id, subject, values))
    return state._replace(model_requests=requests[-MODEL_REQUESTS_KEPT:])


def _model_removed(state: State, ref: ModelRef) -> State:
    model = state.models.get(ref)
    if model is None:
        return state
    state = state._replace(models=state.models.delete(ref), removed=state.removed.set(ref, model))
    left = [other.version for other in state.models.values() if other.name == model.name]
    latest = state.latest.set(model.name, max(left)) if left else _without(state.latest, model.name)
    root = model.artifact.root
    referred = any(other.artifact.root == root for other in state.models.values())
    return state._replace(latest=latest, discarded=state.discarded if referred else state.discarded.set(root, ref))


def _without(latest: Map[ModelName, int], name: ModelName) -> Map[ModelName, int]:
    return latest.delete(name) if name in latest else latest


def _residency_set(state: State, event: mev.ResidencySet) -> State:
    known = state.residencies.get(event.model)
    residency = Residency(
        model=event.model,
        replica_count=event.replica_count,
        pinned=event.pinned,
        needs=event.needs,
        time_us=state.time_us,
        nodes=known.nodes if known else (),
    )
    state = _store(state, residency)
    # Their order says whether it is pinned.
    return _order(state, residency.nodes) if known and known.pinned != event.pinned else state


def _with_nodes(
    state: State, ref: ModelRef, *, added: tuple[NodeId, ...] = (), taken: tuple[NodeId, ...] = ()
) -> State:
    residency = state.residencies.get(ref)
    if residency is None:
        return state
    nodes = tuple(sorted({*residency.nodes, *added} - set(taken)))
    return _order(_store(state, residency._replace(nodes=nodes)), (*added, *taken))


def _replica_failed(state: State, event: mev.ReplicaFailed) -> State:
    residency = state.residencies.get(event.model)
    if residency is None:
        return state
    before = next((f.tries for f in residency.failures if f.node_id == event.node_id), 0)
    wait_us = min(REPLICA_RETRY_US << min(before, 16), REPLICA_RETRY_MAX_US)
    failed = ReplicaFailure(event.node_id, event.boot_id, before + 1, state.time_us + wait_us, event.failure)
    others = tuple(f for f in residency.failures if f.node_id != event.node_id and f.node_id in state.nodes)
    state = _store(state, residency._replace(failures=(*others, failed)))
    return _with_nodes(state, event.model, taken=(event.node_id,))


def _store(state: State, residency: Residency) -> State:
    """Keeps a residency, or lets one go that is over."""
    if residency.replica_count or residency.nodes:
        return state._replace(residencies=state.residencies.set(residency.model, residency))
    if residency.model in state.residencies:
        return state._replace(residencies=state.residencies.delete(residency.model))
    return state


def _order(state: State, node_ids: tuple[NodeId, ...]) -> State:
    """From now on these nodes are owed another order; who is gone is owed none."""
    kept = state.kept
    for node_id in node_ids:
        node = state.nodes.get(node_id)
        if node is not None and not node.state.gone:
            kept = kept.set(node_id, state.sequence)
    return state._replace(kept=kept)


def orders_after_loss(state: State, left: Map[NodeId, Node], node_id: NodeId) -> Map[NodeId, int]:
    """The orders that are owed once a node is gone, and `left` are those that are remembered.

    One that was ever told to keep anything is owed another order: should the same boot come back, it has its models.
    """
    kept = state.kept.set(node_id, state.sequence) if node_id in state.kept else state.kept
    if len(left) < len(state.nodes):
        for forgotten in [known for known in kept if known not in left]:
            kept = kept.delete(forgotten)
    return kept

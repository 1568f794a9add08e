"""Decides which nodes keep which models loaded: what is wanted against what there is. Pure.

Runs after every decision that may have changed the nodes or the wishes, and so comes to rest in the same record.
A node that drains, leaves or no longer has what is needed keeps a model until others have it loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.core import model_events as mev
from coordinator.core.draft import Draft
from coordinator.core.model import Model, Node, NodeState, State
from coordinator.core.place import Candidate, Ranking, model_memory, unmet_need
from coordinator.core.placement import NodeRefusal, RefusalReason
from coordinator.core.registered import Residency
from hivefold.ids import ModelRef, NodeId
from hivefold.models.limits import NODE_KEEPS

_MEMORY_STEP_BYTES = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Load:
    """What a node is to keep: how many models, and the memory of those that it has not loaded yet."""

    count: int = 0
    coming_bytes: int = 0


def place_replicas(draft: Draft) -> None:
    """Places what is missing and releases what is too much, model by model, until nothing is left to do.

    What one model releases may be the room that another one, before it in their order, had none of.
    """
    before = None
    while draft.state is not before:
        before = draft.state
        for ref in sorted(before.residencies):
            _settle(draft, ref)


def short_of(state: State, residency: Residency) -> int:
    """How many nodes are missing."""
    return max(0, residency.replica_count - len(_standing(state, residency)))


def loaded_on(state: State, residency: Residency) -> tuple[NodeId, ...]:
    """The chosen nodes that have the model loaded, as far as was recorded."""
    digest = state.models[residency.model].digest
    return tuple(node_id for node_id in residency.nodes if digest in state.nodes[node_id].loaded_models)


def rank_for(state: State, residency: Residency) -> Ranking:
    """The nodes that could take one more replica, best first, and why the others cannot. Not those that keep it."""
    loads = _loads(state)
    candidates: list[Candidate] = []
    refusals: list[NodeRefusal] = []
    for node_id, node in sorted(state.nodes.items()):
        if node_id in residency.nodes or node.state.gone:
            continue
        judged = _judge(state, residency, node, loads.get(node_id, _Load()))
        if isinstance(judged, Candidate):
            candidates.append(judged)
        else:
            refusals.append(judged)
    candidates.sort(key=lambda candidate: _rank_key(candidate, loads))
    return Ranking(tuple(candidates), tuple(refusals))


def why_short(state: State, residency: Residency) -> tuple[NodeRefusal, ...]:
    """Where nodes are missing, why each one is not chosen; of those that keep it, why one is not to stay."""
    standing = _standing(state, residency)
    if len(standing) >= residency.replica_count:
        return ()
    leaving = [state.nodes[node_id] for node_id in residency.nodes if node_id not in standing]
    judged = [_judge(state, residency, node, _Load()) for node in leaving]
    kept = [found for found in judged if isinstance(found, NodeRefusal)]
    return (*kept, *rank_for(state, residency).refusals)


def retries_due(state: State, now_us: int) -> bool:
    """Whether a node that could not load a model may be chosen again, and would be.

    Asked with every batch of decisions. All else is settled since it last changed: only those nodes are looked at.
    """
    for residency in state.residencies.values():
        for failure in residency.failures:
            if failure.retry_time_us <= now_us and _would_be_chosen(state, residency, failure.node_id, now_us):
                return True
    return False


def _would_be_chosen(state: State, residency: Residency, node_id: NodeId, now_us: int) -> bool:
    node = state.nodes.get(node_id)
    if node is None or node.state.gone or node_id in residency.nodes or not short_of(state, residency):
        return False
    judged = _judge(state._replace(time_us=now_us), residency, node, _load(state, node_id))
    return isinstance(judged, Candidate)


def _settle(draft: Draft, ref: ModelRef) -> None:
    residency = draft.state.residencies[ref]
    if _is_at_rest(draft.state, residency):
        return
    gone = tuple(node_id for node_id in residency.nodes if _is_gone(draft.state, node_id))
    if gone:
        draft.emit(mev.ReplicasReleased(ref, gone, mev.ReleaseCause.NODE_GONE))
        residency = draft.state.residencies.get(ref, residency._replace(nodes=()))
    if not residency.replica_count:
        if residency.nodes:
            draft.emit(mev.ReplicasReleased(ref, residency.nodes, mev.ReleaseCause.NOT_WANTED))
        return
    short = short_of(draft.state, residency)
    if short:
        ranking = rank_for(draft.state, residency)
        chosen = tuple(candidate.node.spec.node_id for candidate in ranking.candidates[:short])
        if chosen:
            draft.emit(mev.ReplicasPlaced(ref, chosen, ranking.reason()))
    _release(draft, draft.state.residencies[ref])


def _is_at_rest(state: State, residency: Residency) -> bool:
    """Whether there are exactly as many nodes as are wanted, all of them to stay: what is so nearly always."""
    return len(residency.nodes) == residency.replica_count == len(_standing(state, residency))


def _release(draft: Draft, residency: Residency) -> None:
    """Releases what is too much, and what others have taken over."""
    state, ref, count = draft.state, residency.model, residency.replica_count
    there = standing = _standing(state, residency)
    loaded = set(loaded_on(state, residency))
    if len(standing) > count:
        best_first = sorted(
            standing,
            key=lambda node_id: (state.nodes[node_id].state is not NodeState.ONLINE, node_id not in loaded, node_id),
        )
        surplus = tuple(sorted(best_first[count:]))
        draft.emit(mev.ReplicasReleased(ref, surplus, mev.ReleaseCause.NOT_WANTED))
        standing = tuple(best_first[:count])
    others = tuple(node_id for node_id in residency.nodes if node_id not in there)
    if others and len(loaded.intersection(standing)) >= count:
        draft.emit(mev.ReplicasReleased(ref, others, mev.ReleaseCause.REPLACED))


def _standing(state: State, residency: Residency) -> tuple[NodeId, ...]:
    """The chosen nodes that are there to stay. A silent one counts until it is lost."""
    need = _memory(residency, state.models[residency.model])
    return tuple(node_id for node_id in residency.nodes if _stays(state.nodes.get(node_id), residency, need))


def _stays(node: Node | None, residency: Residency, memory_bytes: int) -> bool:
    if node is None or node.draining or not (node.state is NodeState.ONLINE or node.state is NodeState.SUSPECTED):
        return False
    return unmet_need(node.spec, residency.needs, memory_bytes) is None


def _is_gone(state: State, node_id: NodeId) -> bool:
    node = state.nodes.get(node_id)
    return node is None or node.state.gone


def _memory(residency: Residency, model: Model) -> int:
    return residency.needs.memory_bytes or model_memory(model)


def _judge(state: State, residency: Residency, node: Node, load: _Load) -> Candidate | NodeRefusal:
    node_id, model = node.spec.node_id, state.models[residency.model]
    if node.state is not NodeState.ONLINE:
        return NodeRefusal(node_id, RefusalReason.NOT_ONLINE, f"is {node.state.lower()}")
    if node.draining:
        return NodeRefusal(node_id, RefusalReason.DRAINING, "is draining")
    need = _memory(residency, model)
    never = unmet_need(node.spec, residency.needs, need)
    if never is not None:
        return never
    for failed in residency.failures:
        if failed.node_id == node_id and failed.boot_id == node.spec.boot_id and failed.retry_time_us > state.time_us:
            again_s = (failed.retry_time_us - state.time_us) / 1e6
            detail = f"could not load it ({failed.failure.reason}: {failed.failure.message}); again in {again_s:.0f} s"
            return NodeRefusal(node_id, RefusalReason.FAILED_BEFORE, detail)
    if load.count >= NODE_KEEPS:
        return NodeRefusal(node_id, RefusalReason.NO_FREE_SLOT, f"keeps {load.count} models, the most that a node may")
    loaded = model.digest in node.loaded_models
    free = node.memory_available_bytes - load.coming_bytes
    if not loaded and node.observe_time_us and free < need:
        coming = f", {load.coming_bytes} of them are for other models" if load.coming_bytes else ""
        detail = f"needs {need} bytes of memory, {node.memory_available_bytes} are available{coming}"
        return NodeRefusal(node_id, RefusalReason.MEMORY_SHORT, detail)
    return Candidate(node, max(0, node.spec.slot_count - node.outstanding), NODE_KEEPS - load.count, loaded)


def _loads(state: State) -> dict[NodeId, _Load]:
    """What each node is to keep already."""
    loads: dict[NodeId, _Load] = {}
    for residency in state.residencies.values():
        for node_id in residency.nodes:
            loads[node_id] = _with_one_more(state, loads.get(node_id, _Load()), residency, node_id)
    return loads


def _load(state: State, node_id: NodeId) -> _Load:
    """The same of one node."""
    load = _Load()
    for residency in state.residencies.values():
        if node_id in residency.nodes:
            load = _with_one_more(state, load, residency, node_id)
    return load


def _with_one_more(state: State, load: _Load, residency: Residency, node_id: NodeId) -> _Load:
    model, node = state.models[residency.model], state.nodes.get(node_id)
    loaded = node is not None and model.digest in node.loaded_models
    return _Load(load.count + 1, load.coming_bytes + (0 if loaded else _memory(residency, model)))


def _rank_key(candidate: Candidate, loads: Mapping[NodeId, _Load]) -> tuple[bool, int, int, int, NodeId]:
    """Who has it loaded, then who keeps the fewest, then more memory, then less load."""
    node = candidate.node
    return (
        not candidate.model_loaded,
        loads.get(node.spec.node_id, _Load()).count,
        -(node.memory_available_bytes // _MEMORY_STEP_BYTES),
        node.cpu_utilization_percent,
        node.spec.node_id,
    )

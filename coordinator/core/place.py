"""Placement: filter -> rank -> pick, with the reason for each node refused. Pure.

Nodes with a free slot come first, then those that have the model loaded, then more memory, then less
load. Beyond its slots a node is sent a little work ahead, measured in time, so that it never waits for
the coordinator between short tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from coordinator.core.events import NodeRank, NodeRefusal, PlacementReason, RefusalReason
from coordinator.core.model import Job, Model, Needs, Node, NodeSpec, NodeState, Priority, Rate, State
from coordinator.core.rates import rate_key
from hivefold import limits
from hivefold.ids import NodeId

_HEADROOM: Final = {Priority.BATCH: 0, Priority.INTERACTIVE: 1, Priority.CONTROL: 2}
"""Extra room per slot that more urgent work finds on a node whose queue is full of less urgent work."""
_MEMORY_PER_MODEL_BYTE: Final = 2
_MEMORY_BASE_BYTES: Final = 64 * 1024 * 1024
_MEMORY_STEP_BYTES: Final = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that can take tasks of a job now, and how many."""

    node: Node
    free_slots: int
    room: int
    model_loaded: bool


@dataclass(frozen=True, slots=True)
class Ranking:
    """The nodes for a job: candidates best first, and why the others were refused."""

    candidates: tuple[Candidate, ...]
    refusals: tuple[NodeRefusal, ...]

    def reason(self) -> PlacementReason:
        """What is recorded with the assignment."""
        ranking = tuple(
            NodeRank(
                candidate.node.spec.node_id,
                candidate.model_loaded,
                candidate.free_slots,
                candidate.node.cpu_utilization_percent,
                candidate.node.memory_available_bytes,
            )
            for candidate in self.candidates[: limits.PLACEMENT_REASON_NODES]
        )
        return PlacementReason(ranking, self.refusals[: limits.PLACEMENT_REASON_NODES])


def rank(state: State, job: Job) -> Ranking:
    """Filters and ranks all nodes that are not gone for a job's next tasks."""
    candidates: list[Candidate] = []
    refusals: list[NodeRefusal] = []
    rate = state.rates.get(rate_key(job))
    for node in sorted(state.nodes.values(), key=_node_id):
        if node.state.gone:
            continue
        judged = _judge(node, job, rate)
        if isinstance(judged, Candidate):
            candidates.append(judged)
        else:
            refusals.append(judged)
    candidates.sort(key=_rank_key)
    return Ranking(tuple(candidates), tuple(refusals))


def may_take(node: Node) -> bool:
    """Whether a node might have room for some job; never false in vain, and as cheap as can be."""
    most = limits.NODE_QUEUE_TASKS + max(1, node.spec.slot_count) * max(_HEADROOM.values())
    return node.state is NodeState.ONLINE and not node.draining and node.outstanding < most


def unmet_need(spec: NodeSpec, job_needs: Needs, memory_bytes: int) -> NodeRefusal | None:
    """Why a node could never take tasks with these needs, whatever runs there now; None if it could."""
    labels = dict(spec.labels) if job_needs.node_labels else {}
    for key, value in job_needs.node_labels:
        if labels.get(key) != value:
            has = f"has {key}={labels[key]}" if key in labels else "does not carry it"
            return NodeRefusal(spec.node_id, RefusalReason.LABEL_MISSING, f"needs label {key}={value}, {has}")
    if len(spec.gpus) < job_needs.gpu_count:
        detail = f"needs {job_needs.gpu_count} GPUs, has {len(spec.gpus)}"
        return NodeRefusal(spec.node_id, RefusalReason.GPU_MISSING, detail)
    if spec.memory_bytes and spec.memory_bytes < memory_bytes:
        detail = f"needs {memory_bytes} bytes of memory, has {spec.memory_bytes} in all"
        return NodeRefusal(spec.node_id, RefusalReason.MEMORY_SHORT, detail)
    return None


def memory_need(job: Job) -> int:
    """Memory that one more attempt takes on a node without the model: stated, or from the model's size."""
    stated = job.spec.needs.memory_bytes
    if stated or job.model is None:
        return stated
    return model_memory(job.model)


def model_memory(model: Model) -> int:
    """Memory that a model takes when it is loaded, by its size."""
    return _MEMORY_BASE_BYTES + _MEMORY_PER_MODEL_BYTE * model.artifact.size_bytes


def _judge(node: Node, job: Job, rate: Rate | None) -> Candidate | NodeRefusal:
    node_id = node.spec.node_id
    if node.state is not NodeState.ONLINE:
        return NodeRefusal(node_id, RefusalReason.NOT_ONLINE, f"is {node.state.lower()}")
    if node.draining:
        return NodeRefusal(node_id, RefusalReason.DRAINING, "is draining")
    need = memory_need(job)
    never = unmet_need(node.spec, job.spec.needs, need)
    if never is not None:
        return never
    loaded = job.model is not None and job.model.digest in node.loaded_models
    if not loaded and node.observe_time_us and node.memory_available_bytes < need:
        detail = f"needs {need} bytes of memory, {node.memory_available_bytes} are available"
        return NodeRefusal(node_id, RefusalReason.MEMORY_SHORT, detail)
    room = _capacity(node, job, rate) - node.outstanding
    if room <= 0:
        detail = f"{node.outstanding} attempts outstanding on {node.spec.slot_count} slots"
        return NodeRefusal(node_id, RefusalReason.NO_FREE_SLOT, detail)
    return Candidate(node, max(0, node.spec.slot_count - node.outstanding), room, loaded)


def _capacity(node: Node, job: Job, rate: Rate | None) -> int:
    """Attempts that a node may hold: its slots and a queue worth NODE_QUEUE_MS of measured time."""
    slots = max(1, node.spec.slot_count)
    ahead = slots
    if rate is not None:
        ahead = max(slots, int(slots * limits.NODE_QUEUE_MS * 1000 / max(1.0, _task_us(job, rate))))
    return min(limits.NODE_QUEUE_TASKS, slots + ahead) + slots * _HEADROOM[job.spec.priority]


def _task_us(job: Job, rate: Rate) -> float:
    """How long the job's next task will take: by its rows, which differ from those measured, or as measured."""
    rows = job.rows.get(job.fresh)
    if rows is None or rate.rows_per_s <= 0:
        return rate.task_us
    return rows.row_count * 1e6 / rate.rows_per_s


def _rank_key(candidate: Candidate) -> tuple[bool, bool, int, int, NodeId]:
    node = candidate.node
    return (
        candidate.free_slots == 0,
        not candidate.model_loaded,
        -(node.memory_available_bytes // _MEMORY_STEP_BYTES),
        node.cpu_utilization_percent,
        node.spec.node_id,
    )


def spread(candidates: Sequence[Candidate], count: int) -> dict[NodeId, int]:
    """How many of `count` tasks each candidate takes: free slots first, then evenly over what room is left."""
    shares = {candidate.node.spec.node_id: 0 for candidate in candidates}
    left = count
    for candidate in candidates:
        take = min(left, candidate.free_slots, candidate.room)
        shares[candidate.node.spec.node_id] += take
        left -= take
    open_candidates = [c for c in candidates if c.room > shares[c.node.spec.node_id]]
    while left > 0 and open_candidates:
        quota = max(1, left // len(open_candidates))
        for candidate in open_candidates:
            node_id = candidate.node.spec.node_id
            take = min(left, quota, candidate.room - shares[node_id])
            shares[node_id] += take
            left -= take
        open_candidates = [c for c in open_candidates if c.room > shares[c.node.spec.node_id]]
    return {node_id: share for node_id, share in shares.items() if share}


def _node_id(node: Node) -> NodeId:
    return node.spec.node_id

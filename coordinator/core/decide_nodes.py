"""Decisions about nodes: join, observe, silence, leave, drain. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from coordinator.core import commands as cmd
from coordinator.core import events as ev
from coordinator.core.check_spec import label_violations, text_violations
from coordinator.core.draft import Draft
from coordinator.core.model import Failure, Job, Node, NodeSpec, NodeState, Rejected, State
from hivefold import limits
from hivefold.errors import FieldViolation, Reason
from hivefold.ids import NAME_RULE, BootId, NodeId, is_name

_MEMORY_STEPS: Final = 16
"""An observation is recorded when available memory moved by two sixteenths of all memory."""
_CPU_STEP_PERCENT: Final = 25


def join_node(draft: Draft, body: cmd.JoinNode) -> Rejected | None:
    """A node joins; an earlier boot of it is given up first. The same boot again changes nothing."""
    spec = body.spec
    if not is_name(spec.node_id):
        return _malformed("spec.node_id")
    if not is_name(spec.boot_id):
        return _malformed("spec.boot_id")
    malformed = tuple(_spec_violations(spec))
    if malformed:
        message = f"{malformed[0].field} {malformed[0].description}"
        return Rejected(Reason.INVALID_ARGUMENT, message, violations=malformed)
    known = draft.state.nodes.get(spec.node_id)
    if known is not None and not known.state.gone:
        if known.spec.boot_id == spec.boot_id:
            return None
        _give_up(draft, known, silent_ms=0)
    elif sum(not node.state.gone for node in draft.state.nodes.values()) >= limits.FLEET_NODES:
        return Rejected(
            Reason.LIMIT_EXCEEDED,
            f"the fleet has {limits.FLEET_NODES} nodes, its limit; start another fleet",
            (("limit", str(limits.FLEET_NODES)),),
        )
    draft.emit(ev.NodeJoined(spec))
    return None


def observe_node(draft: Draft, body: cmd.ObserveNode) -> Rejected | None:
    """Records an observation only where placement would look different."""
    node = _current(draft.state, body.node_id, body.boot_id)
    if node is not None and is_material(node, body, draft.state.time_us):
        draft.emit(
            ev.NodeObserved(body.node_id, body.loaded_models, body.memory_available_bytes, body.cpu_utilization_percent)
        )
    return None


def is_material(node: Node, body: cmd.ObserveNode, now_us: int) -> bool:
    """Whether an observation is worth a record: other models, or other memory or load and not too often."""
    if not node.observe_time_us or body.loaded_models != node.loaded_models:
        return True
    if now_us - node.observe_time_us < limits.OBSERVE_INTERVAL_US:
        return False
    step = max(1, node.spec.memory_bytes // _MEMORY_STEPS)
    moved = abs(body.memory_available_bytes - node.memory_available_bytes)
    return moved >= 2 * step or (
        node.outstanding > 0 and abs(body.cpu_utilization_percent - node.cpu_utilization_percent) >= _CPU_STEP_PERCENT
    )


def report_silence(draft: Draft, body: cmd.ReportSilence) -> Rejected | None:
    """Suspects, gives up or recovers a node by how long it has been silent."""
    node = _current(draft.state, body.node_id, body.boot_id)
    if node is None:
        return None
    if body.silent_ms >= body.lost_after_ms:
        _give_up(draft, node, body.silent_ms)
    elif body.silent_ms >= body.suspect_after_ms:
        if node.state is NodeState.ONLINE:
            draft.emit(ev.NodeSuspected(body.node_id, body.silent_ms))
    elif node.state is NodeState.SUSPECTED:
        draft.emit(ev.NodeRecovered(body.node_id))
    return None


def leave_node(draft: Draft, body: cmd.LeaveNode) -> Rejected | None:
    """A node leaves in good order; what it still has when it goes is given to others, at no task's cost."""
    node = _current(draft.state, body.node_id, body.boot_id)
    if node is None:
        return None
    if not body.gone:
        if node.state is not NodeState.LEAVING:
            draft.emit(ev.NodeLeaveStarted(body.node_id, body.boot_id))
        return None
    _take_back(draft, body.node_id, Reason.RETURNED)
    draft.emit(ev.NodeLeft(body.node_id, body.boot_id))
    return None


def drain_node(draft: Draft, body: cmd.DrainNode) -> Rejected | None:
    """A node gets no new work."""
    node = draft.state.nodes.get(body.node_id)
    if node is None:
        return _unknown(draft.state, body.node_id)
    malformed = tuple(text_violations("note", body.note, limits.NOTE_BYTES))
    if malformed:
        return Rejected(Reason.INVALID_ARGUMENT, f"note {malformed[0].description}", violations=malformed)
    if not node.draining:
        draft.emit(ev.NodeDrainStarted(body.node_id, body.note))
    return None


def undrain_node(draft: Draft, body: cmd.UndrainNode) -> Rejected | None:
    """A node gets work again."""
    node = draft.state.nodes.get(body.node_id)
    if node is None:
        return _unknown(draft.state, body.node_id)
    if node.draining:
        draft.emit(ev.NodeDrainEnded(body.node_id))
    return None


def _give_up(draft: Draft, node: Node, silent_ms: int) -> None:
    draft.emit(ev.NodeLost(node.spec.node_id, node.spec.boot_id, silent_ms))
    _take_back(draft, node.spec.node_id, Reason.NODE_LOST)


def _take_back(draft: Draft, node_id: NodeId, reason: Reason) -> None:
    """Ends all attempts with a node; a task that lost too many nodes fails its job."""
    for job_id in sorted(draft.state.open_jobs, key=lambda job_id: draft.state.open_jobs[job_id]):
        job = draft.state.jobs[job_id]
        lost = sorted((task, a.number) for task, a in job.running.items() if a.node_id == node_id)
        if not lost:
            continue
        tasks, numbers = zip(*lost, strict=True)
        draft.emit(ev.AttemptsLost(job_id, node_id, tasks, numbers, reason))
        if reason is Reason.NODE_LOST:
            _fail_suspect_task(draft, draft.state.jobs[job_id], tasks)


def _fail_suspect_task(draft: Draft, job: Job, tasks: tuple[int, ...]) -> None:
    for task in tasks:
        trouble = job.troubles[task]
        if trouble.losses >= limits.TASK_LOSSES:
            nodes = ", ".join(trouble.lost_nodes)
            message = (
                f"task {task} was lost with its node {trouble.losses} times ({nodes}): it may be what kills them; "
                "look at those nodes' logs before submitting it again"
            )
            metadata = (("nodes", nodes), ("task", str(task)))
            draft.emit(ev.JobFailed(job.job_id, Failure(Reason.ATTEMPTS_EXHAUSTED, message, metadata=metadata)))
            return


def _spec_violations(spec: NodeSpec) -> Iterator[FieldViolation]:
    """What a node says of itself stays small: it is in the log, and in every list of nodes."""
    yield from label_violations("spec.labels", spec.labels)
    if spec.slot_count > limits.NODE_SLOTS:
        yield FieldViolation("spec.slot_count", f"must be at most {limits.NODE_SLOTS}, is {spec.slot_count}")
    if len(spec.gpus) > limits.NODE_GPUS:
        yield FieldViolation("spec.gpus", f"must be at most {limits.NODE_GPUS}, are {len(spec.gpus)}")
    texts = [("grpc_address", spec.grpc_address), ("code_version", spec.code_version), ("host_name", spec.host_name)]
    texts += [(f"gpus[{index}].product", gpu.product) for index, gpu in enumerate(spec.gpus)]
    for field, text in texts:
        yield from text_violations(f"spec.{field}", text, limits.LABEL_BYTES)


def _current(state: State, node_id: NodeId, boot_id: BootId) -> Node | None:
    node = state.nodes.get(node_id)
    if node is None or node.state.gone or node.spec.boot_id != boot_id:
        return None
    return node


def _unknown(state: State, node_id: NodeId) -> Rejected:
    known = ", ".join(sorted(state.nodes)[:10]) or "none yet"
    return Rejected(Reason.NODE_NOT_FOUND, f"there is no node {node_id!r}; known nodes: {known}", (("node", node_id),))


def _malformed(field: str) -> Rejected:
    violation = FieldViolation(field, f"must be {NAME_RULE}")
    return Rejected(Reason.INVALID_ARGUMENT, f"{field} is malformed", violations=(violation,))

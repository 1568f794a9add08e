"""Decisions about jobs: submit, cancel, expire. Pure."""

from __future__ import annotations

from coordinator.core import commands as cmd
from coordinator.core import events as ev
from coordinator.core.check_spec import check_spec, text_violations
from coordinator.core.digest import spec_fingerprint
from coordinator.core.draft import Draft
from coordinator.core.erased import erased_us, owed_erasures
from coordinator.core.model import Failure, InferSpec, Job, JobSpec, JobState, Needs, ProbeSpec, Rejected, State
from coordinator.core.place import memory_need, unmet_need
from coordinator.core.planning import plan_tasks
from coordinator.core.resolve import resolve, unknown_model
from hivefold import limits
from hivefold.errors import FieldViolation, Reason
from hivefold.ids import NAME_RULE, REQUEST_RULE, JobId, ModelRef, is_name, is_request_id


def submit_job(draft: Draft, body: cmd.SubmitJob) -> Rejected | None:
    """Accepts a job and plans its first tasks. A known request_id with the same spec records nothing."""
    state = draft.state
    malformed = _malformed_ids(body)
    if malformed is not None:
        return malformed
    known = state.requests.get(body.request_id)
    if known is not None:
        return _repeated(known, body, same=state.jobs[known].spec == body.spec)
    past = state.past_requests.get(body.request_id)
    if past is not None:
        return _repeated(past.job_id, body, same=past.fingerprint == spec_fingerprint(body.spec))
    if body.job_id in state.jobs:
        violation = FieldViolation("job_id", "belongs to another request; draw a new one")
        return Rejected(Reason.INVALID_ARGUMENT, f"job id {body.job_id!r} is taken", violations=(violation,))
    if len(state.open_jobs) >= limits.OPEN_JOBS:
        return Rejected(
            Reason.LIMIT_EXCEEDED,
            f"{limits.OPEN_JOBS} jobs are open, the limit; wait for some to end or cancel some",
            (("limit", str(limits.OPEN_JOBS)),),
        )
    model = _resolve(state, body.spec)
    if isinstance(model, Rejected):
        return model
    rejected = check_spec(body.spec, state.models.get(model) if model else None)
    if rejected is not None:
        return rejected
    timeout_us = body.spec.timeout_us
    deadline_us = state.time_us + timeout_us if timeout_us else 0
    event = ev.JobSubmitted(
        body.job_id, body.request_id, body.spec, model or ModelRef(""), deadline_us, body.traceparent
    )
    unsatisfiable = _unsatisfiable(state, event)
    if unsatisfiable is not None:
        return unsatisfiable
    draft.emit(event)
    plan_tasks(draft, body.job_id)
    return None


def cancel_job(draft: Draft, body: cmd.CancelJob) -> Rejected | None:
    """Cancels an open job; cancelling a cancelled one records nothing."""
    job = draft.state.jobs.get(body.job_id)
    if job is None:
        return Rejected(
            Reason.JOB_NOT_FOUND,
            f"there is no job {body.job_id!r}; list them with: hivefold job ls",
            (("job", body.job_id),),
        )
    malformed = tuple(text_violations("note", body.note, limits.NOTE_BYTES))
    if malformed:
        return Rejected(Reason.INVALID_ARGUMENT, f"note {malformed[0].description}", violations=malformed)
    if job.state is JobState.CANCELLED:
        return None
    if job.state.final:
        return Rejected(
            Reason.JOB_STATE,
            f"job {body.job_id} has {job.state.lower()}; only an open job can be cancelled",
            (("job", body.job_id), ("state", job.state)),
        )
    draft.emit(ev.JobCancelled(body.job_id, body.note))
    return None


def erase(draft: Draft, body: cmd.EraseJob | cmd.ConfirmKeysShredded) -> Rejected | None:
    """Erases a job's data, or notes that what was owed to erased jobs is done."""
    if isinstance(body, cmd.EraseJob):
        return _erase_job(draft, body)
    _confirm_keys_shredded(draft, body)
    return None


def _erase_job(draft: Draft, body: cmd.EraseJob) -> Rejected | None:
    """Erases the data of an ended job; erasing twice records nothing. Its keys go once this is durable."""
    job = draft.state.jobs.get(body.job_id)
    if job is None and not body.past:
        return Rejected(
            Reason.JOB_NOT_FOUND,
            f"there is no job {body.job_id!r}; list them with: hivefold job ls",
            (("job", body.job_id),),
        )
    if job is not None and not job.state.final:
        return Rejected(
            Reason.JOB_STATE,
            f"job {body.job_id} is {job.state.lower()}; cancel it first: hivefold job cancel {body.job_id}",
            (("job", body.job_id), ("state", job.state)),
        )
    readers = _readers(draft.state, body.input_root)
    if readers:
        named = ", ".join(readers[:5]) + (", ..." if len(readers) > 5 else "")
        return Rejected(
            Reason.JOB_STATE,
            f"the input of job {body.job_id} is still read by {named}: wait for the end, or cancel, then erase",
            (("job", body.job_id), ("readers", ",".join(readers[:20]))),
        )
    if erased_us(draft.state, body.job_id):
        return None
    if len(owed_erasures(draft.state)) >= limits.ERASURES_KEPT:
        return Rejected(
            Reason.LIMIT_EXCEEDED,
            f"the data of {limits.ERASURES_KEPT} erased jobs are still to be removed, for the store does not answer; "
            "try again once it does",
            (("limit", str(limits.ERASURES_KEPT)),),
        )
    draft.emit(ev.JobErased(body.job_id, body.key_ids))
    return None


def _confirm_keys_shredded(draft: Draft, body: cmd.ConfirmKeysShredded) -> None:
    """Notes that what is owed to erased jobs was done; what is noted already, or unknown, is passed over."""
    done = frozenset(body.job_ids)
    fresh = tuple(erasure.job_id for erasure in owed_erasures(draft.state) if erasure.job_id in done)
    if fresh:
        draft.emit(ev.KeysShredded(fresh))


def _readers(state: State, root: str) -> list[JobId]:
    """Open jobs that read the input of that root, oldest first."""
    found = [
        (sequence, job_id)
        for job_id, sequence in state.open_jobs.items()
        if root and _input_root(state.jobs[job_id]) == root
    ]
    return [job_id for _, job_id in sorted(found)]


def _input_root(job: Job) -> str:
    kind = job.spec.kind
    return kind.data_set.content.root if isinstance(kind, InferSpec) else ""


def expire_jobs(draft: Draft) -> Rejected | None:
    """Fails every open job whose time is over."""
    now_us = draft.state.time_us
    for job_id in expired(draft.state, now_us):
        job = draft.state.jobs[job_id]
        message = (
            f"the job did not end within its timeout of {job.spec.timeout_us / 1e6:g} s: "
            f"{len(job.done)} of {job.planned} planned tasks were done; allow more time or add nodes"
        )
        draft.emit(ev.JobFailed(job_id, Failure(Reason.DEADLINE_EXCEEDED, message)))
    return None


def expired(state: State, now_us: int) -> list[JobId]:
    """Open jobs whose time is over, oldest first."""
    over = [
        (sequence, job_id)
        for job_id, sequence in state.open_jobs.items()
        if 0 < state.jobs[job_id].deadline_time_us <= now_us
    ]
    return [job_id for _, job_id in sorted(over)]


def _malformed_ids(body: cmd.SubmitJob) -> Rejected | None:
    violations: list[FieldViolation] = []
    if not is_request_id(body.request_id):
        violations.append(FieldViolation("request_id", f"must be {REQUEST_RULE}"))
    if not is_name(body.job_id):
        violations.append(FieldViolation("job_id", f"must be {NAME_RULE}"))
    if not violations:
        return None
    return Rejected(Reason.INVALID_ARGUMENT, "an id is malformed", violations=tuple(violations))


def _repeated(job_id: JobId, body: cmd.SubmitJob, *, same: bool) -> Rejected | None:
    if same:
        return None
    return Rejected(
        Reason.REQUEST_ID_REUSED,
        f"request_id {body.request_id!r} belongs to job {job_id} with another spec; choose a new one",
        (("job", job_id), ("request_id", body.request_id)),
    )


def _resolve(state: State, spec: JobSpec) -> ModelRef | Rejected | None:
    if isinstance(spec.kind, ProbeSpec):
        return None
    model = resolve(state, spec.kind.model)
    return unknown_model(state, spec.kind.model) if model is None else model.ref


def _unsatisfiable(state: State, event: ev.JobSubmitted) -> Rejected | None:
    """Refuses a job that no node of the fleet could ever take. An empty fleet may still grow: accepted."""
    nodes = [node for node in state.nodes.values() if not node.state.gone]
    if not nodes:
        return None
    job = Job(
        job_id=event.job_id,
        request_id=event.request_id,
        spec=event.spec,
        model=state.models.get(event.model),
        state=JobState.PENDING,
        create_time_us=0,
        deadline_time_us=0,
        traceparent="",
        create_sequence=0,
        sequence=0,
    )
    memory = memory_need(job)
    unmet = [unmet_need(node.spec, event.spec.needs, memory) for node in nodes]
    refusals = sorted((r for r in unmet if r is not None), key=lambda r: r.node_id)
    if len(refusals) < len(nodes):
        return None
    details = "; ".join(f"{r.node_id} {r.detail}" for r in refusals[:5])
    return Rejected(
        Reason.NEEDS_UNSATISFIABLE,
        f"no node could ever meet the job's needs: {details}; change the needs or add such a node",
        (*_needs_metadata(event.spec.needs, memory), ("unmet", refusals[0].reason)),
    )


def _needs_metadata(needs: Needs, memory_bytes: int) -> tuple[tuple[str, str], ...]:
    labels = ",".join(f"{key}={value}" for key, value in needs.node_labels)
    values = (("gpu_count", str(needs.gpu_count)), ("memory_bytes", str(memory_bytes)), ("node_labels", labels))
    return tuple((key, value) for key, value in values if value not in {"0", ""})

"""Decisions upon outcomes: the first recorded outcome of the current attempt wins, all others are passed over. Pure."""

from __future__ import annotations

from coordinator.core import commands as cmd
from coordinator.core import events as ev
from coordinator.core.draft import Draft
from coordinator.core.model import Failure, InferSpec, Job, Rejected, sorted_pairs
from coordinator.core.planning import plan_tasks
from hivefold import limits
from hivefold.errors import Reason
from hivefold.ids import JobId, NodeId


def report_outcomes(draft: Draft, body: cmd.ReportOutcomes) -> Rejected | None:
    """Records what a node answered. Late, foreign and repeated answers record nothing."""
    touched: dict[JobId, None] = {}
    for columns in body.columns:
        if _lacks_output(draft, columns):
            _fail_without_output(draft, body.node_id, columns)
        elif _succeed_columns(draft, body.node_id, columns):
            touched[columns.job_id] = None
    for job_id, successes in _successes(body).items():
        if _succeed_reports(draft, body.node_id, job_id, successes):
            touched[job_id] = None
    for report in body.reports:
        if report.failure is not None and _is_current(draft, body.node_id, report):
            _fail(draft, body.node_id, report, report.failure)
    for job_id in touched:
        _continue(draft, job_id)
    return None


def _lacks_output(draft: Draft, columns: cmd.OutcomeColumns) -> bool:
    """Whether these successes are of a kind of task that must give an output."""
    job = _open_job(draft, columns.job_id)
    return job is not None and isinstance(job.spec.kind, InferSpec)


def _fail_without_output(draft: Draft, node_id: NodeId, columns: cmd.OutcomeColumns) -> None:
    message = "the node reported success and sent no output; look at its log and version"
    failure = Failure(Reason.DATA_INVALID, message, retryable=True)
    for task, number in zip(columns.tasks, columns.attempts, strict=False):
        report = cmd.OutcomeReport(columns.job_id, task, number, 0, 0, 0, failure)
        if _is_current(draft, node_id, report):
            _fail(draft, node_id, report, failure)


def _succeed_columns(draft: Draft, node_id: NodeId, columns: cmd.OutcomeColumns) -> bool:
    job = _open_job(draft, columns.job_id)
    if job is None:
        return False
    running, seen, current = job.running, set[int](), list[int]()
    for index, (task, number) in enumerate(zip(columns.tasks, columns.attempts, strict=False)):
        attempt = running.get(task)
        if attempt is None or attempt.number != number or attempt.node_id != node_id or task in seen:
            continue
        seen.add(task)
        current.append(index)
    if not current:
        return False
    if len(current) == len(columns.tasks):
        tasks, attempts = columns.tasks, columns.attempts
        durations, rows, positions = columns.durations_us, columns.row_counts, columns.result_sequences
    else:
        tasks = tuple(columns.tasks[i] for i in current)
        attempts = tuple(columns.attempts[i] for i in current)
        durations = tuple(columns.durations_us[i] for i in current)
        rows = tuple(columns.row_counts[i] for i in current)
        positions = tuple(columns.result_sequences[i] for i in current)
    draft.emit(ev.TasksSucceeded(columns.job_id, node_id, tasks, attempts, durations, rows, positions, ()))
    return True


def _successes(body: cmd.ReportOutcomes) -> dict[JobId, list[cmd.OutcomeReport]]:
    by_job: dict[JobId, list[cmd.OutcomeReport]] = {}
    for report in body.reports:
        if report.failure is None and report.output is not None:
            by_job.setdefault(report.job_id, []).append(report)
    return by_job


def _succeed_reports(draft: Draft, node_id: NodeId, job_id: JobId, reports: list[cmd.OutcomeReport]) -> bool:
    first: dict[int, cmd.OutcomeReport] = {}
    for report in reports:
        if report.task not in first and _is_current(draft, node_id, report):
            first[report.task] = report
    if not first:
        return False
    accepted = list(first.values())
    draft.emit(
        ev.TasksSucceeded(
            job_id,
            node_id,
            tuple(r.task for r in accepted),
            tuple(r.attempt for r in accepted),
            tuple(r.duration_us for r in accepted),
            tuple(r.row_count for r in accepted),
            tuple(r.result_sequence for r in accepted),
            tuple(r.output for r in accepted if r.output is not None),
        )
    )
    return True


def _fail(draft: Draft, node_id: NodeId, report: cmd.OutcomeReport, failure: Failure) -> None:
    job = draft.state.jobs[report.job_id]
    trouble = job.troubles.get(report.task)
    if failure.reason is Reason.RETURNED and (trouble is None or trouble.returns < limits.TASK_RETURNS):
        draft.emit(ev.AttemptsLost(report.job_id, node_id, (report.task,), (report.attempt,), Reason.RETURNED))
        return
    failed = 1 + (len(trouble.failures) if trouble else 0)
    most = job.spec.max_attempts or limits.DEFAULT_MAX_ATTEMPTS
    retry_us = draft.state.time_us + _backoff_us(failed) if failure.retryable and failed < most else 0
    draft.emit(ev.AttemptFailed(report.job_id, report.task, report.attempt, node_id, failure, retry_us))
    if not retry_us:
        draft.emit(ev.JobFailed(report.job_id, _job_failure(draft.state.jobs[report.job_id], report.task)))


def _job_failure(job: Job, task: int) -> Failure:
    """The job's failure: the last one itself when no retry could help, else all of them as evidence."""
    failures = job.troubles[task].failures
    node_id, last = failures[-1]
    where = {**dict(last.metadata), "node": node_id, "task": str(task)}
    if not last.retryable:
        return Failure(last.reason, f"task {task} on {node_id}: {last.message}", metadata=sorted_pairs(where))
    shown = failures[-limits.EVIDENCE_FAILURES :]
    evidence = "; ".join(f"on {node}: {failure.reason}: {failure.message}" for node, failure in shown)
    message = f"task {task} failed {len(failures)} times, the last {len(shown)}: {evidence}"
    return Failure(Reason.ATTEMPTS_EXHAUSTED, message, metadata=sorted_pairs({**where, "failures": str(len(failures))}))


def _backoff_us(failed: int) -> int:
    wait_ms: int = min(limits.RETRY_BACKOFF_MAX_MS, limits.RETRY_BACKOFF_MS << min(failed - 1, 16))
    return wait_ms * 1000


def _continue(draft: Draft, job_id: JobId) -> None:
    """After successes: ends the job, or plans more of it with what was measured."""
    job = _open_job(draft, job_id)
    if job is None:
        return
    if job.plan_complete and len(job.done) == job.planned:
        draft.emit(ev.JobSucceeded(job_id))
    else:
        plan_tasks(draft, job_id)


def _open_job(draft: Draft, job_id: JobId) -> Job | None:
    job = draft.state.jobs.get(job_id)
    return None if job is None or job.state.final else job


def _is_current(draft: Draft, node_id: NodeId, report: cmd.OutcomeReport) -> bool:
    job = _open_job(draft, report.job_id)
    attempt = job.running.get(report.task) if job else None
    return attempt is not None and attempt.number == report.attempt and attempt.node_id == node_id

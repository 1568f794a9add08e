"""What must always hold of a state. Checked after replay, in the simulation and by every test layer. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from coordinator.core.model import Job, JobState, State
from coordinator.core.retire import tasks_held
from hivefold import limits
from hivefold.ids import JobId


def violations(state: State, since: State | None = None) -> list[str]:
    """Every broken invariant in words; empty when all hold. Jobs that are as in `since`, a sound state, are sound."""
    return [*_jobs(state, since.jobs if since else {}), *_past(state), *_nodes(state), *_models(state)]


def _jobs(state: State, sound: Mapping[JobId, Job]) -> Iterator[str]:
    open_jobs = {job_id for job_id, job in state.jobs.items() if not job.state.final}
    if open_jobs != set(state.open_jobs):
        yield f"open_jobs lists {sorted(state.open_jobs)}, open are {sorted(open_jobs)}"
    if {job.request_id: job_id for job_id, job in state.jobs.items()} != dict(state.requests):
        yield "requests are not those of the jobs"
    for job_id, job in state.jobs.items():
        if sound.get(job_id) is not job:
            yield from (f"{job_id}: {problem}" for problem in _job(job))


def _past(state: State) -> Iterator[str]:
    numbers = range(state.ended_total - len(state.ended), state.ended_total)
    if set(state.ended) != set(numbers):
        yield "ended jobs are not numbered without gaps"
    elif sorted(state.ended.values()) != sorted(job_id for job_id, job in state.jobs.items() if job.state.final):
        yield "ended does not list the jobs that have ended"
    elif state.ended_tasks != sum(tasks_held(state.jobs[job_id]) for job_id in state.ended.values()):
        yield "ended_tasks is not the sum over ended jobs"
    if set(state.past_order) != set(range(state.past_total - len(state.past_order), state.past_total)):
        yield "past requests are not numbered without gaps"
    if sorted(state.past_order.values()) != sorted(state.past_requests):
        yield "past_order does not list the past requests"
    if len(state.past_order) > limits.REQUESTS_KEPT:
        yield f"{len(state.past_order)} past requests are kept"
    if any(request_id in state.requests for request_id in state.past_requests):
        yield "a request is both past and present"


def _job(job: Job) -> Iterator[str]:
    running, waiting, done = set(job.running), set(job.waiting), set(job.done)
    if running & waiting or running & done or waiting & done:
        yield "a task is in more than one of running, waiting, done"
    if any(task >= job.fresh for task in running | waiting | done):
        yield "a fresh task was touched"
    if job.fresh > job.planned:
        yield f"fresh {job.fresh} beyond planned {job.planned}"
    if job.rows_done != sum(done.row_count for done in job.done.values()):
        yield "rows_done is not the sum over done tasks"
    if job.state.final:
        if running or waiting:
            yield "an ended job has open attempts"
        if job.state is JobState.SUCCEEDED and not (job.plan_complete and len(done) == job.planned):
            yield "succeeded without all its tasks"
        if (job.failure is None) != (job.state is JobState.SUCCEEDED):
            yield "failure does not fit the state"
    else:
        if len(running) + len(waiting) + len(done) != job.fresh:
            yield "a task got lost"
        if job.plan_complete and len(done) == job.planned:
            yield "all tasks are done and the job is open"
    for task, attempt in job.running.items():
        trouble = job.troubles.get(task)
        if attempt.number != (trouble.number if trouble else 0) + 1:
            yield f"task {task} runs attempt {attempt.number} after {trouble}"


def _nodes(state: State) -> Iterator[str]:
    outstanding = Counter(
        attempt.node_id for job_id in state.open_jobs for attempt in state.jobs[job_id].running.values()
    )
    for node_id, node in state.nodes.items():
        if node.outstanding != outstanding[node_id]:
            yield f"{node_id}: outstanding {node.outstanding}, attempts say {outstanding[node_id]}"
        if node.state.gone and outstanding[node_id]:
            yield f"{node_id} is gone and has attempts"
    for job_id in state.open_jobs:
        for task, attempt in state.jobs[job_id].running.items():
            holder = state.nodes.get(attempt.node_id)
            if holder is None or holder.spec.boot_id != attempt.boot_id:
                yield f"{job_id}: task {task} is with a boot of {attempt.node_id} that is not there"


def _models(state: State) -> Iterator[str]:
    highest: dict[str, int] = {}
    for model in state.models.values():
        highest[model.name] = max(model.version, highest.get(model.name, 0))
    if highest != dict(state.latest):
        yield f"latest says {dict(state.latest)}, registered are {highest}"
    for ref in set(state.models) & set(state.removed):
        yield f"{ref} is both registered and removed"
    yield from (f"{a.ref} stands for {a.model}" for a in state.aliases.values() if a.model not in state.models)
    stored = {model.artifact.root for model in state.models.values()}
    yield from (f"{root} is to go and needed" for root in state.discarded if root in stored)
    for ref, residency in state.residencies.items():
        if ref not in state.models:
            yield f"{ref} is kept and not registered"
        for node_id in residency.nodes:
            node = state.nodes.get(node_id)
            if node is None or node.state.gone:
                yield f"{ref} is kept by {node_id}, which is gone"
            elif node_id not in state.kept:
                yield f"{node_id} was never told to keep {ref}"
    yield from (f"{node_id} is gone and owed an order" for node_id in state.kept if node_id not in state.nodes)

"""JobService: submit, follow, cancel, fetch the output."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import aclosing
from operator import itemgetter
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from coordinator.core.commands import CancelJob, EraseJob, SubmitJob
from coordinator.core.erased import erased_us
from coordinator.core.model import Erasure, InferSpec, Job, JobState, State
from coordinator.core.why import first_waiting, why
from coordinator.index import Wanted
from coordinator.output import OutputFormat, stream_output
from coordinator.servicers import checking
from coordinator.servicers.backing import Backing
from coordinator.servicers.paging import Pager
from coordinator.views import JOB_STATES, job_view, task_view, why_view
from coordinator.watch import watch_job
from coordinator.wire.times import timestamp
from coordinator.wire.values import job_spec_from_proto, pairs
from hivefold import limits, observe
from hivefold.blobs.sealing import DataKey
from hivefold.errors import ConflictError, DataRefusedError, NotFoundError, Reason
from hivefold.ids import JobId, RequestId, sortable_id
from hivefold.v1 import job_pb2
from hivefold.v1 import job_service_pb2 as pb
from hivefold.v1.job_service_pb2_grpc import JobServiceServicer

_FORMATS: Final = {
    pb.OUTPUT_FORMAT_UNSPECIFIED: OutputFormat.NPZ,
    pb.OUTPUT_FORMAT_NPZ: OutputFormat.NPZ,
    pb.OUTPUT_FORMAT_NPY: OutputFormat.NPY,
    pb.OUTPUT_FORMAT_CSV: OutputFormat.CSV,
}


class JobServicer(JobServiceServicer):
    """hivefold.v1.JobService."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Any) -> pb.SubmitJobResponse:
        """Accepts a job; a repeated request_id gives the same job."""
        checking.refuse(checking.submit_job(request))
        backing = self._backing
        job_id = JobId(sortable_id("j", backing.clock.now_us() // 1000, backing.entropy.draw(10)))
        request_id = RequestId(request.request_id)
        spec = job_spec_from_proto(request.spec)
        answer = await backing.decide(SubmitJob(job_id, request_id, spec, observe.current_traceparent()))
        job = await self._submitted(answer.state, request_id)
        if request.HasField("wait"):
            job = await backing.writer.until_final(job, _wait_s(request.wait, context.time_remaining()))
        return pb.SubmitJobResponse(job=job_view(job))

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        """Gives one job."""
        return pb.GetJobResponse(job=_view(await self._known(request.job_id), self._backing.state))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        """Lists jobs, newest first."""
        checking.refuse(checking.job_states(request.states))
        filters = [sorted(request.states), dict(request.labels)]
        pager = Pager("jobs", filters, request.page_size, request.page_token)
        state, index = self._backing.state, self._backing.index
        before = int(pager.after) if pager.after else state.sequence + 1
        wanted = Wanted(before, frozenset(request.states), pairs(request.labels), pager.size + 1)
        # Thousands of jobs take a while to sort; the state does not change under the thread.
        recent = await asyncio.to_thread(_newest, state, wanted)
        past, complete = await index.page(wanted, state) if index else ([], not state.retired_sequence)
        merged = heapq.merge(recent, past, key=itemgetter(0), reverse=True)
        page = pager.page((str(sequence), job) for sequence, job in merged)
        return pb.ListJobsResponse(jobs=page.items, next_page_token=page.next_token, incomplete=not complete)

    async def ListTasks(self, request: pb.ListTasksRequest, context: Any) -> pb.ListTasksResponse:
        """Lists a job's tasks in order."""
        job = await self._known(request.job_id)
        pager = Pager("tasks", [job.job_id], request.page_size, request.page_token)
        first = int(pager.after) + 1 if pager.after else 0
        page = pager.page((str(task), task) for task in range(first, job.planned))
        tasks = [task_view(job, task) for task in page.items]
        return pb.ListTasksResponse(tasks=tasks, next_page_token=page.next_token)

    async def WhyTask(self, request: pb.WhyTaskRequest, context: Any) -> pb.WhyTaskResponse:
        """Says why a task stands where it stands."""
        job = await self._known(request.job_id)
        state = self._backing.state
        task = request.task if request.HasField("task") else first_waiting(job)
        if task >= job.planned and job.plan_complete:
            raise NotFoundError(
                f"job {job.job_id} has tasks 0 to {job.planned - 1} and no task {task}",
                reason=Reason.JOB_NOT_FOUND,
                metadata={"job": job.job_id, "task": str(task)},
            )
        return why_view(why(state, job, task, self._backing.clock.now_us()), state.sequence)

    async def WatchJob(self, request: pb.WatchJobRequest, context: Any) -> AsyncIterator[pb.WatchJobResponse]:
        """Follows a job until it ends."""
        checking.refuse(checking.name("job_id", request.job_id))
        backing = self._backing
        await backing.state_that(lambda known: JobId(request.job_id) in known.jobs)
        source = await backing.source_at(request.after_sequence)
        events = watch_job(source, backing.log, backing.past, JobId(request.job_id), request.after_sequence)
        async with aclosing(events):
            async for together in events:
                yield pb.WatchJobResponse(events=together)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Any) -> pb.CancelJobResponse:
        """Cancels a job; a cancelled one stays so."""
        checking.refuse(checking.act("job_id", request.job_id, request.request_id))
        job_id = JobId(request.job_id)
        try:
            answer = await self._backing.decide(CancelJob(job_id, request.note))
        except NotFoundError:
            return pb.CancelJobResponse(job=job_view(_cancelled(await self._known(job_id))))
        return pb.CancelJobResponse(job=job_view(answer.state.jobs[job_id]))

    async def EraseJob(self, request: pb.EraseJobRequest, context: Any) -> pb.EraseJobResponse:
        """Erases an ended job's data; repeated, it makes sure once more that they are gone."""
        checking.refuse(checking.act("job_id", request.job_id, request.request_id))
        backing = self._backing
        job = await self._known(request.job_id)
        key_ids = await backing.job_keys.ids(job)
        past = job.job_id not in backing.state.jobs
        answer = await backing.decide(EraseJob(job.job_id, key_ids, _input_root(job), past))
        erasure = Erasure(job.job_id, erased_us(answer.state, job.job_id), key_ids)
        await backing.eraser.shred(erasure)
        return pb.EraseJobResponse(job=_view(job, answer.state))

    async def DownloadOutput(
        self, request: pb.DownloadOutputRequest, context: Any
    ) -> AsyncIterator[pb.DownloadOutputResponse]:
        """Streams the output of a job that succeeded."""
        checking.refuse(checking.output_format(request.format, _FORMATS))
        job = await self._known(request.job_id)
        backing = self._backing
        key = await self._output_key(job)
        output = await stream_output(job, _FORMATS[request.format], backing.results, backing.chunks, key)
        total_bytes = output.total_bytes
        async with aclosing(output.pieces) as pieces:
            async for piece in pieces:
                yield pb.DownloadOutputResponse(data=piece, total_bytes=total_bytes)
                total_bytes = 0

    async def _output_key(self, job: Job) -> DataKey | None:
        """The key of a job's outputs; None where they are not sealed. Raises DataRefusedError (JOB_ERASED)."""
        if erased_us(self._backing.state, job.job_id):
            raise DataRefusedError(
                f"the data of job {job.job_id} were erased; submit it again, with its data",
                reason=Reason.JOB_ERASED,
                metadata={"job": job.job_id},
            )
        try:
            return await self._backing.job_keys.for_output(job)
        except DataRefusedError:
            return None

    async def _known(self, job_id: str) -> Job:
        checking.refuse(checking.name("job_id", job_id))
        return await self._backing.job(JobId(job_id))

    async def _submitted(self, state: State, request_id: RequestId) -> Job:
        """The job of a request that was decided at `state`; repeated late it may be one that is long over."""
        job_id = state.requests.get(request_id)
        if job_id is not None:
            return state.jobs[job_id]
        return await self._backing.job(state.past_requests[request_id].job_id)


def _view(job: Job, state: State) -> job_pb2.Job:
    view = job_view(job)
    if erased := timestamp(erased_us(state, job.job_id)):
        view.erase_time.CopyFrom(erased)
    return view


def _input_root(job: Job) -> str:
    kind = job.spec.kind
    return kind.data_set.content.root if isinstance(kind, InferSpec) else ""


def _wait_s(asked: Duration, remaining_s: float | None) -> float:
    """How long a submit waits for the job's end: the answer has to arrive before the call's deadline."""
    wait_s = min(asked.ToMicroseconds() / 1e6, limits.SUBMIT_WAIT_S)
    return wait_s if remaining_s is None else min(wait_s, 0.9 * remaining_s)


def _cancelled(job: Job) -> Job:
    """A job that ended long ago and is to be cancelled. Raises ConflictError unless it was."""
    if job.state is not JobState.CANCELLED:
        raise ConflictError(
            f"job {job.job_id} has {job.state.lower()}; only an open job can be cancelled",
            metadata={"job": job.job_id, "state": job.state},
        )
    return job


def _newest(state: State, wanted: Wanted) -> list[tuple[int, job_pb2.Job]]:
    """The first of the state's jobs that are wanted, newest first, with the positions of their submits."""
    labels = set(wanted.labels)
    found = [
        job
        for job in state.jobs.values()
        if job.create_sequence < wanted.before
        and (not wanted.states or JOB_STATES[job.state] in wanted.states)
        and labels.issubset(job.spec.labels)
    ]
    newest = heapq.nlargest(wanted.count, found, key=lambda job: job.create_sequence)
    return [(job.create_sequence, job_view(job)) for job in newest]

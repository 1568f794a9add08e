"""A server of jobs that does what the test says."""
# ruff: noqa: N802 - methods are named by the contract

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import groupby
from typing import Any

from hivefold.errors import BrokerUnavailableError, NotFoundError, Reason
from hivefold.v1 import feed_pb2, job_pb2
from hivefold.v1 import job_service_pb2 as pb
from hivefold.v1.job_service_pb2_grpc import JobServiceServicer

END = feed_pb2.JOB_EVENT_TYPE_SUCCEEDED
ASSIGNED = feed_pb2.JOB_EVENT_TYPE_TASKS_ASSIGNED
STORY = [(3, 0, ASSIGNED), (3, 1, ASSIGNED), (5, 0, ASSIGNED), (5, 1, END)]


class Scripted(JobServiceServicer):
    """Tells the story of one job; cuts the stream where `cuts` says (records told before each cut)."""

    def __init__(self) -> None:
        self.cuts: list[int] = []
        self.asked: list[int] = []
        self.submitted: list[pb.SubmitJobRequest] = []
        self.refusals = 1
        self.pages = {"": (["j-3", "j-2"], "more"), "more": (["j-1"], "")}
        self.pieces: list[bytes] = []
        self.total_bytes = 6
        self.told: dict[int, job_pb2.Job] = {}
        """The job as each record leaves it."""

    async def WatchJob(self, request: pb.WatchJobRequest, context: Any) -> AsyncIterator[pb.WatchJobResponse]:
        self.asked.append(request.after_sequence)
        left = self.cuts.pop(0) if self.cuts else len(STORY)
        for position, together in groupby(STORY, key=lambda told: told[0]):
            if position <= request.after_sequence:
                continue
            if not left:
                raise BrokerUnavailableError("cut")
            left -= 1
            job = self.told.get(position)
            events = [feed_pb2.JobEvent(sequence=at, index=index, type=kind, job=job) for at, index, kind in together]
            yield pb.WatchJobResponse(events=events)

    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Any) -> pb.SubmitJobResponse:
        self.submitted.append(request)
        if len(self.submitted) <= self.refusals:
            raise BrokerUnavailableError("not now")
        return pb.SubmitJobResponse(job=job_pb2.Job(job_id="j-1", request_id=request.request_id))

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        if request.job_id != "j-1":
            raise NotFoundError("no such job", reason=Reason.JOB_NOT_FOUND, metadata={"job": request.job_id})
        return pb.GetJobResponse(job=self.told.get(5))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        ids, token = self.pages[request.page_token]
        return pb.ListJobsResponse(jobs=[job_pb2.Job(job_id=job_id) for job_id in ids], next_page_token=token)

    async def DownloadOutput(
        self, request: pb.DownloadOutputRequest, context: Any
    ) -> AsyncIterator[pb.DownloadOutputResponse]:
        for piece in self.pieces:
            yield pb.DownloadOutputResponse(data=piece, total_bytes=self.total_bytes)
        if len(self.pieces) < 2:
            raise BrokerUnavailableError("gone")

    async def ListTasks(self, request: pb.ListTasksRequest, context: Any) -> pb.ListTasksResponse:
        return pb.ListTasksResponse()

    async def WhyTask(self, request: pb.WhyTaskRequest, context: Any) -> pb.WhyTaskResponse:
        return pb.WhyTaskResponse(task=request.task)

    async def EraseJob(self, request: pb.EraseJobRequest, context: Any) -> pb.EraseJobResponse:
        raise NotImplementedError

    async def CancelJob(self, request: pb.CancelJobRequest, context: Any) -> pb.CancelJobResponse:
        return pb.CancelJobResponse(job=job_pb2.Job(job_id=request.job_id, state=job_pb2.JOB_STATE_CANCELLED))

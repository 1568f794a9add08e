"""The client against a server that does what the test says."""
# ruff: noqa: N802 - methods are named by the contract

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from hivefold import limits
from hivefold.client import Fleet, connect, connect_sync
from hivefold.errors import BrokerUnavailableError, InvalidRequestError, NotFoundError, Reason, UnavailableError
from hivefold.rpc import RpcServer, Service
from hivefold.v1 import feed_pb2, job_pb2
from hivefold.v1 import job_service_pb2 as pb
from hivefold.v1.job_service_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server

END = feed_pb2.JOB_EVENT_TYPE_SUCCEEDED
ASSIGNED = feed_pb2.JOB_EVENT_TYPE_TASKS_ASSIGNED
STORY = [(3, 0, ASSIGNED), (3, 1, ASSIGNED), (5, 0, ASSIGNED), (5, 1, END)]


class Scripted(JobServiceServicer):
    """Tells the story of one job; cuts the stream where `cuts` says (records told before each cut)."""

    def __init__(self) -> None:
        self.cuts: list[int] = []
        self.asked: list[int] = []
        self.deadlines_s: list[float] = []
        self.submitted: list[pb.SubmitJobRequest] = []
        self.refusals = 1
        self.pages = {"": (["j-3", "j-2"], "more"), "more": (["j-1"], "")}
        self.pieces: list[bytes] = []

    async def WatchJob(self, request: pb.WatchJobRequest, context: Any) -> AsyncIterator[pb.WatchJobResponse]:
        self.asked.append(request.after_sequence)
        left = self.cuts.pop(0) if self.cuts else len(STORY)
        for position, together in groupby(STORY, key=lambda told: told[0]):
            if position <= request.after_sequence:
                continue
            if not left:
                raise BrokerUnavailableError("cut")
            left -= 1
            events = [feed_pb2.JobEvent(sequence=at, index=index, type=kind) for at, index, kind in together]
            yield pb.WatchJobResponse(events=events)

    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Any) -> pb.SubmitJobResponse:
        self.submitted.append(request)
        self.deadlines_s.append(context.time_remaining())
        if len(self.submitted) <= self.refusals:
            raise BrokerUnavailableError("not now")
        return pb.SubmitJobResponse(job=job_pb2.Job(job_id="j-1", request_id=request.request_id))

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        raise NotFoundError("no such job", reason=Reason.JOB_NOT_FOUND, metadata={"job": request.job_id})

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        ids, token = self.pages[request.page_token]
        return pb.ListJobsResponse(jobs=[job_pb2.Job(job_id=job_id) for job_id in ids], next_page_token=token)

    async def DownloadOutput(
        self, request: pb.DownloadOutputRequest, context: Any
    ) -> AsyncIterator[pb.DownloadOutputResponse]:
        for piece in self.pieces:
            yield pb.DownloadOutputResponse(data=piece, total_bytes=6)
        if len(self.pieces) < 2:
            raise BrokerUnavailableError("gone")

    async def ListTasks(self, request: pb.ListTasksRequest, context: Any) -> pb.ListTasksResponse:
        return pb.ListTasksResponse()

    async def WhyTask(self, request: pb.WhyTaskRequest, context: Any) -> pb.WhyTaskResponse:
        return pb.WhyTaskResponse(task=request.task)

    async def EraseJob(self, request: pb.EraseJobRequest, context: Any) -> pb.EraseJobResponse:
        raise NotImplementedError

    async def CancelJob(self, request: pb.CancelJobRequest, context: Any) -> pb.CancelJobResponse:
        return pb.CancelJobResponse()


@pytest.fixture
def script() -> Scripted:
    return Scripted()


@pytest.fixture
async def address(script: Scripted) -> AsyncIterator[str]:
    add: Callable[[Any], None] = lambda raw: add_JobServiceServicer_to_server(script, raw)  # noqa: E731
    server = RpcServer([Service("hivefold.v1.JobService", add)])
    address = server.bind()
    await server.start()
    yield address
    await server.stop(0)


@pytest.fixture
async def fleet(address: str) -> AsyncIterator[Fleet]:
    async with connect(address) as fleet:
        yield fleet


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WATCH_RETRY_MS", 1)


@pytest.mark.parametrize("cuts", [[], [0], [1], [0, 0, 1], [1, 0, 0]], ids=str)
async def test_a_watch_goes_on_after_cuts(fleet: Fleet, script: Scripted, cuts: list[int]) -> None:
    """Wherever the stream is cut, even within a record: each event once, in order, up to the final one."""
    script.cuts = cuts
    events = [event async for event in fleet.jobs.watch("j-1")]

    assert [(event.sequence, event.index, event.type) for event in events] == STORY


async def test_a_watch_behind_the_end_is_empty(fleet: Fleet, script: Scripted) -> None:
    """A job that ended before the position has nothing more to tell; nobody waits for it."""
    async with asyncio.timeout(5):
        assert [event async for event in fleet.jobs.watch("j-1", 5)] == []

    assert script.asked == [5]


async def test_a_watch_gives_up_in_the_end(fleet: Fleet, script: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stays away is reported, not waited for without end."""
    monkeypatch.setattr(limits, "WATCH_RESUME_S", 0.01)
    script.cuts = [0] * 1000
    with pytest.raises(UnavailableError):
        _ = [event async for event in fleet.jobs.watch("j-1")]


async def test_a_retried_submit_is_the_same_request(fleet: Fleet, script: Scripted) -> None:
    """The id is made once and sent with each try; every call has a deadline."""
    job = await fleet.jobs.submit_probe(1)

    first, second = script.submitted
    assert first.request_id == second.request_id == job.request_id
    assert all(0 < seconds <= limits.GRPC_DEADLINE_S for seconds in script.deadlines_s)


async def test_a_run_is_one_request_whatever_is_cut(fleet: Fleet, script: Scripted) -> None:
    """The submit is repeated as it was, then the job is followed to its end over cuts."""
    script.cuts = [1, 0]
    told: list[int] = []
    job = await fleet.jobs.run(job_pb2.JobSpec(), on_progress=lambda job: told.append(len(told)))

    assert len({request.request_id for request in script.submitted}) == 1
    assert {request.wait.ToTimedelta().total_seconds() for request in script.submitted} == {0.2}
    assert told == [0, 1, 2, 3]
    assert job == job_pb2.Job()


async def test_a_run_gives_up_in_the_end(fleet: Fleet, script: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts nothing is reported, not asked without end."""
    monkeypatch.setattr(limits, "WATCH_RESUME_S", 0.01)
    script.refusals = 1000
    with pytest.raises(UnavailableError):
        await fleet.jobs.run_probe(1)


async def test_a_job_that_has_ended_is_not_waited_for(fleet: Fleet, script: Scripted) -> None:
    """No call is made for what is known."""
    ended = job_pb2.Job(job_id="j-1", state=job_pb2.JOB_STATE_FAILED)

    assert await fleet.jobs.wait(ended) is ended
    assert script.asked == []


async def test_lists_walk_all_pages(fleet: Fleet) -> None:
    """Callers see one list, whatever the pages."""
    assert [job.job_id async for job in fleet.jobs.list()] == ["j-3", "j-2", "j-1"]


async def test_errors_are_typed(fleet: Fleet) -> None:
    """By reason and class; nothing of gRPC comes through."""
    with pytest.raises(NotFoundError) as caught:
        await fleet.jobs.get("j-9")

    assert (caught.value.reason, caught.value.metadata) == (Reason.JOB_NOT_FOUND, {"job": "j-9"})


async def test_an_output_file_is_whole_or_not_there(fleet: Fleet, script: Scripted, tmp_path: Path) -> None:
    """A cut download leaves nothing behind; a whole one has its name."""
    script.pieces = [b"abc"]
    with pytest.raises(UnavailableError):
        await fleet.jobs.download_output("j-1", tmp_path / "out.npz")
    assert list(tmp_path.iterdir()) == []

    script.pieces = [b"abc", b"def"]
    seen: list[tuple[int, int]] = []
    await fleet.jobs.download_output("j-1", tmp_path / "out.npz", lambda done, total: seen.append((done, total)))

    assert (tmp_path / "out.npz").read_bytes() == b"abcdef"
    assert seen == [(3, 6), (6, 6)]


async def test_an_output_of_unknown_format_is_refused_at_once(fleet: Fleet, tmp_path: Path) -> None:
    """The name says the format."""
    with pytest.raises(InvalidRequestError):
        await fleet.jobs.download_output("j-1", tmp_path / "out.parquet")


async def test_programs_without_asyncio_get_the_same(address: str) -> None:
    """Values, lists, watches and errors through the blocking face."""

    def program() -> tuple[list[str], int, Reason]:
        with connect_sync(address) as fleet:
            with pytest.raises(NotFoundError) as caught:
                fleet.job("j-9")
            return [job.job_id for job in fleet.jobs()], len(list(fleet.watch("j-1"))), caught.value.reason

    listed, told, reason = await asyncio.to_thread(program)

    assert (listed, told, reason) == (["j-3", "j-2", "j-1"], len(STORY), Reason.JOB_NOT_FOUND)


async def test_a_fleet_is_found_by_its_directory_and_found_again(address: str, tmp_path: Path) -> None:
    """A coordinator that came back at another address is found without a new client."""
    with pytest.raises(UnavailableError, match="hivefold up"):
        async with connect(directory=tmp_path):
            pass
    (tmp_path / "endpoints.json").write_text(json.dumps({"coordinator": "127.0.0.1:1"}))
    async with connect(directory=tmp_path) as fleet:
        (tmp_path / "endpoints.json").write_text(json.dumps({"coordinator": address}))
        with pytest.raises(UnavailableError):
            await anext(fleet.nodes.watch())
        assert [job.job_id async for job in fleet.jobs.list()] == ["j-3", "j-2", "j-1"]

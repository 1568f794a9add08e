"""The client against a server that does what the test says."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from hivefold import limits
from hivefold.client import Fleet, connect
from hivefold.client.connection import Connection
from hivefold.client.locating import locator
from hivefold.clock import ManualClock
from hivefold.errors import InvalidRequestError, NotFoundError, Reason, UnavailableError
from hivefold.v1 import job_pb2
from tests.unit.client.scripted import STORY, Scripted

TRY_MS = 400


class Noting(grpc.aio.UnaryUnaryClientInterceptor):
    """Notes the time that each call is given, and takes TRY_MS of it."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.timeouts_s: list[float | None] = []

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.timeouts_s.append(client_call_details.timeout)
        self._clock.advance_ms(TRY_MS)
        return await continuation(client_call_details, request)


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
    """The id is made once and sent with each try."""
    job = await fleet.jobs.submit_probe(1)

    first, second = script.submitted
    assert first.request_id == second.request_id == job.request_id


async def test_all_tries_of_a_call_share_its_deadline(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call has a deadline; one that is sent again has what the first try left of it."""
    clock = ManualClock()
    noting = Noting(clock)
    monkeypatch.setattr(
        "hivefold.client.connection.open_channel",
        lambda target, **_: grpc.aio.insecure_channel(target, interceptors=[noting]),
    )
    async with Fleet(Connection(locator(address, None), clock)) as fleet:
        await fleet.jobs.submit_probe(1)

    assert noting.timeouts_s == [limits.GRPC_DEADLINE_S, limits.GRPC_DEADLINE_S - TRY_MS / 1000]


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

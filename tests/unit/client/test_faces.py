"""The two faces of the client, for programs with asyncio and without, are one."""

from __future__ import annotations

import asyncio
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from hivefold.client import Fleet, JobHandle, SyncFleet, SyncJobHandle, connect
from hivefold.client.audit import Audit
from hivefold.client.blobs import Blobs
from hivefold.client.jobs import Jobs
from hivefold.client.log import Log
from hivefold.client.models import Models
from hivefold.client.nodes import Nodes
from hivefold.client.sync import SyncAudit, SyncBlobs, SyncJobs, SyncLog, SyncModels, SyncNodes
from hivefold.errors import InvalidRequestError, NotFoundError, Reason, UnavailableError
from hivefold.v1 import job_pb2
from tests.unit.client.scripted import STORY, Scripted

FACES = {
    Fleet: SyncFleet,
    JobHandle: SyncJobHandle,
    Jobs: SyncJobs,
    Models: SyncModels,
    Nodes: SyncNodes,
    Blobs: SyncBlobs,
    Log: SyncLog,
    Audit: SyncAudit,
}


def public(kind: type) -> dict[str, object]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


@pytest.mark.parametrize("kind", FACES, ids=lambda kind: kind.__name__)
def test_both_faces_have_the_same_calls(kind: type) -> None:
    """Every call of one is a call of the other, with the same parameters and the same documentation."""
    face = public(FACES[kind])
    assert set(face) == set(public(kind))
    for name, call in public(kind).items():
        own = face[name]
        assert type(own) is type(call), name
        if inspect.isfunction(own):
            assert inspect.unwrap(own) is call, name
            assert inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call), name
            assert not inspect.iscoroutinefunction(own), name
            assert inspect.isasyncgenfunction(call) == inspect.isgeneratorfunction(own), name


async def test_both_faces_have_the_same_parts(fleet: Fleet, address: str) -> None:
    """jobs, models, nodes and the others are under the same names."""

    def parts() -> dict[str, type]:
        with connect(address) as blocking:
            return {name: type(part) for name, part in vars(blocking).items() if not name.startswith("_")}

    own = {name: type(part) for name, part in vars(fleet).items() if not name.startswith("_")}
    assert {name: FACES[kind] for name, kind in own.items()} == await asyncio.to_thread(parts)


async def test_programs_without_asyncio_get_the_same(address: str) -> None:
    """Values, lists, watches and errors through the blocking face."""

    def program() -> tuple[list[str], int, Reason]:
        with connect(address) as fleet:
            with pytest.raises(NotFoundError) as caught:
                fleet.jobs.get("j-9")
            return [job.job_id for job in fleet.jobs.list()], len(list(fleet.jobs.watch("j-1"))), caught.value.reason

    listed, told, reason = await asyncio.to_thread(program)

    assert (listed, told, reason) == (["j-3", "j-2", "j-1"], len(STORY), Reason.JOB_NOT_FOUND)


async def test_threads_share_a_fleet(address: str) -> None:
    """Calls of several threads at once each get their own answer."""

    def program() -> list[list[str]]:
        with connect(address) as fleet, ThreadPoolExecutor(4) as threads:
            return list(threads.map(lambda _: [job.job_id for job in fleet.jobs.list()], range(16)))

    assert await asyncio.to_thread(program) == [["j-3", "j-2", "j-1"]] * 16


async def test_a_notebook_needs_no_asyncio(address: str) -> None:
    """The blocking face works where an event loop runs already; here it may only not be the server's own."""

    def notebook() -> list[str]:
        async def cell() -> list[str]:
            with connect(address) as fleet:
                return [job.job_id for job in fleet.jobs.list()]

        return asyncio.run(cell())

    assert await asyncio.to_thread(notebook) == ["j-3", "j-2", "j-1"]


async def test_a_callback_that_calls_the_fleet_is_refused(address: str, script: Scripted) -> None:
    """It would wait for itself; what was under way is told so, and nothing is left running."""
    script.told = {3: job_pb2.Job(job_id="j-1", state=job_pb2.JOB_STATE_RUNNING)}
    script.refusals = 0

    def program() -> None:
        with connect(address) as fleet:
            job = fleet.jobs.submit_probe(1)
            fleet.jobs.wait(job, lambda _: print(fleet.jobs.get("j-1")))

    with pytest.raises(InvalidRequestError, match="callback"):
        await asyncio.to_thread(program)
    assert "hivefold" not in {thread.name for thread in threading.enumerate()}


async def test_a_fleet_that_is_closed_says_so(address: str) -> None:
    """After `with` there is nothing to ask, and the iterator that was left behind is over as well."""

    def program() -> None:
        with connect(address) as fleet:
            listed = fleet.jobs.list()
            assert next(listed).job_id == "j-3"
        with pytest.raises(UnavailableError, match="with connect"):
            next(listed)
        fleet.jobs.get("j-1")

    with pytest.raises(UnavailableError, match="with connect"):
        await asyncio.to_thread(program)

"""Jobs that ended long ago are listed as all others, from an index that may vanish at any time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hivefold import limits
from hivefold.bus.memory import MemoryBroker
from hivefold.client import JobOptions
from hivefold.log.memory import MemoryEventLog
from hivefold.v1 import job_pb2
from tests.unit.coordinator.fleet import ScriptedNode, until, working
from tests.unit.coordinator.serving import Served, serving

COUNT = 12


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECENT_JOBS", 2)
    monkeypatch.setattr(limits, "INDEX_WAIT_S", 5.0)
    monkeypatch.setattr(limits, "INDEX_RETRY_S", 0.01)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ended.sqlite"


async def run_jobs(served: Served) -> list[job_pb2.Job]:
    """Jobs with labels, the third open to the end and the fifth cancelled; newest first, as they are at last."""
    await until(lambda: len(served.writer.state.nodes) == 1)
    jobs = []
    for number in range(COUNT):
        options = JobOptions(request_id=f"r{number}", labels={"team": "even" if number % 2 == 0 else "odd", "x": "y=z"})
        if number in {3, 5}:
            await served.fleet.nodes.drain("n1", "keep it open")
        job = await served.fleet.jobs.submit_probe(2, options=options)
        if number in {3, 5}:
            if number == 5:
                await served.fleet.jobs.cancel(job.job_id)
            await served.fleet.nodes.undrain("n1")
        jobs.append(job.job_id)
    for job_id in jobs:
        await served.fleet.jobs.wait(job_id)
    return [await served.fleet.jobs.get(job_id) for job_id in reversed(jobs)]


async def listed(served: Served, **filters: Sequence[job_pb2.JobState.ValueType] | dict[str, str]) -> list[job_pb2.Job]:
    """All pages of three; fails when the list says that it is incomplete."""
    incomplete: list[bool] = []
    tell: Callable[[], None] = lambda: incomplete.append(True)  # noqa: E731
    jobs = [job async for job in served.fleet.jobs.list(page_size=3, on_incomplete=tell, **filters)]  # type: ignore[arg-type]
    assert not incomplete
    return jobs


async def test_every_job_is_listed_newest_first(log: MemoryEventLog, broker: MemoryBroker, file: Path) -> None:
    """With paging, and filtered by state and labels, as if all were in memory."""
    async with serving(log, broker, index_file=file) as served, working(ScriptedNode(broker, "n1")):
        jobs = await run_jobs(served)
        assert len(served.writer.state.jobs) < COUNT

        assert await listed(served) == jobs
        assert await listed(served, labels={"team": "odd"}) == jobs[::2]
        assert await listed(served, labels={"team": "odd", "x": "y=z"}) == jobs[::2]
        assert await listed(served, labels={"team": "o"}) == []
        cancelled = [job for job in jobs if job.state == job_pb2.JOB_STATE_CANCELLED]
        assert await listed(served, states=[job_pb2.JOB_STATE_CANCELLED]) == cancelled
        assert len(cancelled) == 1


@pytest.mark.parametrize("loss", ["none", "gone", "damaged", "of another log", "half"])
async def test_the_index_is_made_anew_where_it_is_not_right(
    log: MemoryEventLog, broker: MemoryBroker, file: Path, loss: str, tmp_path: Path
) -> None:
    """After a restart, on another host, with a damaged file, with one of another fleet: the same list."""
    async with serving(log, broker, index_file=file) as served, working(ScriptedNode(broker, "n1")):
        jobs = await run_jobs(served)
        await listed(served)
    match loss:
        case "gone":
            for path in tmp_path.iterdir():
                path.unlink()
        case "damaged":
            file.write_bytes(b"not a database" * 100)
        case "of another log":
            other = MemoryBroker()
            async with serving(MemoryEventLog(), other, index_file=file) as served, working(ScriptedNode(other, "n1")):
                await run_jobs(served)
                await listed(served)
        case "half":
            log.store[:] = log.store[: len(log.store) // 2]
            jobs = []
        case _:
            pass
    async with serving(log, broker, index_file=file) as served:
        found = await listed(served)

    assert not jobs or found == jobs
    assert len(found) == len({job.job_id for job in found})


async def test_a_list_says_that_it_is_incomplete(
    log: MemoryEventLog, broker: MemoryBroker, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the index is behind what the state has let go: never silently shorter."""
    async with serving(log, broker) as served, working(ScriptedNode(broker, "n1")):
        await run_jobs(served)
        told: list[bool] = []
        found = [job async for job in served.fleet.jobs.list(on_incomplete=lambda: told.append(True))]

    assert told
    assert len(found) < COUNT

"""A job's handle: progress, the end, the output, against a server that does what the test says."""

from __future__ import annotations

import asyncio
import io

import numpy as np
import pytest

from hivefold import errors
from hivefold.client import Fleet, JobFailedError, JobHandle, Progress, connect
from hivefold.errors import FieldViolation, InvalidRequestError, Reason, UnavailableError
from hivefold.v1 import error_pb2, job_pb2
from tests.unit.client.scripted import Scripted


def job(state: str, done: int, failure: error_pb2.Failure | None = None) -> job_pb2.Job:
    progress = job_pb2.JobProgress(rows_done=done, rows_total=10, attempts_failed=1, attempts_lost=1)
    return job_pb2.Job(
        job_id="j-1",
        state=job_pb2.JobState.Value(f"JOB_STATE_{state}"),
        progress=progress,
        sequence=1,
        failure=failure,
    )


@pytest.fixture
def ends_well(script: Scripted) -> None:
    script.told = {3: job("RUNNING", 4), 5: job("SUCCEEDED", 10)}


@pytest.fixture
async def handle(fleet: Fleet) -> JobHandle:
    return await fleet.job(job("PENDING", 0))


@pytest.mark.usefixtures("ends_well")
async def test_a_watch_tells_each_change_once(handle: JobHandle, script: Scripted) -> None:
    """What was known, then what changed, over cuts, up to the end; events that change nothing are passed over."""
    script.cuts = [1, 0]
    told = [progress async for progress in handle.watch()]

    assert told == [Progress("PENDING", 0, 10, 2), Progress("RUNNING", 4, 10, 2), Progress("SUCCEEDED", 10, 10, 2)]
    assert [(progress.fraction, progress.ended) for progress in told] == [(0.0, False), (0.4, False), (1.0, True)]
    assert [progress async for progress in handle.watch()] == told[2:]


@pytest.mark.usefixtures("ends_well")
async def test_a_wait_tells_progress_and_ends_with_the_job(handle: JobHandle) -> None:
    """The callback gets what a watch gives, and the handle knows the last of it."""
    told: list[Progress] = []
    ended = await handle.wait(timeout_s=30, on_progress=told.append)

    assert [progress.state for progress in told] == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert ended == told[-1] == await handle.progress()
    assert handle.message.state == job_pb2.JOB_STATE_SUCCEEDED


async def test_a_job_that_failed_is_an_error_with_its_reason(handle: JobHandle, script: Scripted) -> None:
    """Whoever wants its output learns why there is none, what the message mentions, and what to do."""
    failure = error_pb2.Failure(reason=error_pb2.REASON_NAN_FOUND, message="row 7 holds NaN", metadata={"row": "7"})
    script.told = {3: job("RUNNING", 4), 5: job("FAILED", 4, failure=failure)}
    with pytest.raises(JobFailedError, match="row 7") as caught:
        await handle.outputs()

    assert caught.value.reason is Reason.NAN_FOUND
    assert caught.value.metadata == {"job": "j-1", "row": "7"}
    assert caught.value.fix == errors.FIXES[Reason.NAN_FOUND]


async def test_a_failure_of_a_newer_server_is_one_without_a_known_reason(handle: JobHandle, script: Scripted) -> None:
    """Its message still says what happened."""
    failure = error_pb2.Failure(message="something new")
    failure.MergeFromString(b"\x08\xe7\x07")  # reason 999
    script.told = {5: job("FAILED", 4, failure=failure)}
    with pytest.raises(JobFailedError, match="something new") as caught:
        await handle.wait()

    assert caught.value.reason is Reason.UNSPECIFIED


async def test_a_wait_that_is_over_leaves_the_job_alone(handle: JobHandle, script: Scripted) -> None:
    """It says that the job goes on; nothing was cancelled."""
    script.cuts = [0] * 10_000
    with pytest.raises(UnavailableError, match="goes on") as caught:
        await handle.wait(timeout_s=0.01)

    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    assert handle.message.state == job_pb2.JOB_STATE_PENDING
    assert (await handle.cancel()).state == "CANCELLED"


@pytest.mark.usefixtures("ends_well")
async def test_outputs_are_arrays(handle: JobHandle, script: Scripted, address: str) -> None:
    """By name, as they were stored, in both faces; the bytes are counted while they come."""
    stored = io.BytesIO()
    np.savez(stored, label=np.arange(10), probabilities=np.ones((10, 3), "<f4"))
    data = stored.getvalue()
    script.pieces, script.total_bytes = [data[:500], data[500:]], len(data)
    counted: list[tuple[int, int]] = []
    outputs = await handle.outputs(on_progress=lambda done, total: counted.append((done, total)))

    assert list(outputs) == ["label", "probabilities"]
    assert np.array_equal(outputs["label"], np.arange(10))
    assert np.array_equal(outputs["probabilities"], np.ones((10, 3), "<f4"))
    assert counted == [(500, len(data)), (len(data), len(data))]

    def program() -> list[str]:
        with connect(address) as fleet:
            return list(fleet.job("j-1").outputs())

    assert await asyncio.to_thread(program) == ["label", "probabilities"]


async def test_a_handle_needs_a_job(fleet: Fleet) -> None:
    """An id that nobody knows is refused when the handle is asked for."""
    with pytest.raises(errors.NotFoundError):
        await fleet.job("j-9")


def test_the_fix_of_a_malformed_request_is_that_of_its_fields() -> None:
    """Field by field, as the server names them."""
    error = InvalidRequestError("no", violations=[FieldViolation("a", "must be set"), FieldViolation("b", "is odd")])

    assert error.fix == "a must be set; b is odd"

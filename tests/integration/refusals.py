"""What the tests of bad input share: the typed error that a call ends with, in time, and a fleet that goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np

from hivefold.client import Fleet
from hivefold.errors import HivefoldError
from hivefold.rpc import error_from_rpc
from hivefold.v1 import job_pb2

ANSWER_S = 10.0
"""Whatever is wrong is said within this time."""
END_S = 30.0
"""A job that cannot work has ended within this time."""
_Error = TypeVar("_Error", bound=HivefoldError)


async def refused(call: Awaitable[Any], kind: type[_Error]) -> _Error:
    """The error of the given class that `call` raises in time; it says what to do."""
    try:
        async with asyncio.timeout(ANSWER_S):
            answer = await call
    except grpc.RpcError as error:
        found = error_from_rpc(error, "the server")
    except HivefoldError as error:
        found = error
    else:
        raise AssertionError(f"nothing was refused: {answer}")
    assert isinstance(found, kind), f"{type(found).__name__} ({found.reason}): {found.message}"
    assert len(found.message) > 15, found.message
    return found


async def first(items: AsyncIterator[Any]) -> Any:
    """The first of a stream."""
    async for item in items:
        return item
    return None


async def everything(items: AsyncIterator[Any]) -> list[Any]:
    """All of a stream."""
    return [item async for item in items]


async def ended(client: Fleet, job: job_pb2.Job) -> job_pb2.Job:
    """The job once it has ended, which it does in time."""
    async with asyncio.timeout(END_S):
        return await client.jobs.wait(job.job_id)


async def works(client: Fleet) -> None:
    """The fleet runs a job of every node's kind of work."""
    job = await ended(client, await client.jobs.submit_probe(3))
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job.failure.message


async def infers(client: Fleet, model: str, folder: Path) -> None:
    """The fleet runs rows through a model and gives the right answer."""
    rows = np.arange(32, dtype="<f4").reshape(8, 4)
    job = await ended(client, await client.jobs.submit_infer(model, rows))
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job.failure.message
    await client.jobs.download_output(job.job_id, folder / "good.npy")
    assert (np.load(folder / "good.npy") == 2 * rows).all()

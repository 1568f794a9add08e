"""Goes on after cuts: follows a job without a gap and without a repeat, repeats a call that may be repeated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from hivefold import limits
from hivefold.client.connection import Connection
from hivefold.client.messages import message
from hivefold.clock import SystemClock
from hivefold.errors import UnavailableError
from hivefold.v1 import feed_pb2, job_service_pb2
from hivefold.v1.job_service_pb2_grpc import JobServiceStub

_FINAL: Final = frozenset(
    {feed_pb2.JOB_EVENT_TYPE_SUCCEEDED, feed_pb2.JOB_EVENT_TYPE_FAILED, feed_pb2.JOB_EVENT_TYPE_CANCELLED}
)


_Answer = TypeVar("_Answer")


async def resumed(call: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """The answer to a call that is harmless to repeat, asked for again after each cut.

    Raises UnavailableError when there is none for WATCH_RESUME_S.
    """
    clock = SystemClock()
    began_ms, wait_ms = clock.monotonic_ms(), limits.WATCH_RETRY_MS
    while True:
        try:
            return await call()
        except UnavailableError:
            if clock.monotonic_ms() - began_ms > limits.WATCH_RESUME_S * 1000:
                raise
        await asyncio.sleep(wait_ms / 1000)
        wait_ms = min(2 * wait_ms, limits.WATCH_RETRY_MAX_MS)


async def watch_job(connection: Connection, job_id: str, after_sequence: int) -> AsyncIterator[feed_pb2.JobEvent]:
    """The job's events after a position until the final one.

    Raises UnavailableError when a cut lasts longer than WATCH_RESUME_S without an event.
    """
    clock = SystemClock()
    seen = after_sequence
    alive_ms, wait_ms = clock.monotonic_ms(), limits.WATCH_RETRY_MS
    while True:
        request = message(job_service_pb2.WatchJobRequest, job_id=job_id, after_sequence=seen)
        try:
            async for response in connection.stream(JobServiceStub, "WatchJob", request):
                alive_ms, wait_ms = clock.monotonic_ms(), limits.WATCH_RETRY_MS
                for event in response.events:
                    yield event
                    # The events of a record come together: a cut never falls between them.
                    seen = event.sequence
                    if event.type in _FINAL:
                        return
        except UnavailableError:
            if clock.monotonic_ms() - alive_ms > limits.WATCH_RESUME_S * 1000:
                raise
        else:
            # The server has nothing more to tell: the job had ended before the position.
            return
        await asyncio.sleep(wait_ms / 1000)
        wait_ms = min(2 * wait_ms, limits.WATCH_RETRY_MAX_MS)

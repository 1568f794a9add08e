"""The client for programs without asyncio: the same calls, each run to its end on a private event loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from hivefold import limits
from hivefold.client.connection import connect
from hivefold.client.data import Rows
from hivefold.client.fleet import Fleet
from hivefold.client.inference import Inputs
from hivefold.client.jobs import InferOptions, JobOptions
from hivefold.oip.limits import DEFAULT_PRIORITY
from hivefold.v1 import feed_pb2, fleet_pb2, job_pb2, log_service_pb2, model_pb2, record_pb2

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Value = TypeVar("_Value")


def connect_sync(address: str | None = None, *, directory: Path | str | None = None) -> SyncFleet:
    """As hivefold.client.connect, for `with`. Not for use inside a running event loop."""
    return SyncFleet(connect(address, directory=directory))


class SyncFleet:
    """A fleet, one blocking call at a time; MUST stay in the thread that opened it."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._run(self._fleet.__aenter__())
        return self

    def __exit__(
        self, error_class: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        try:
            self._run(self._fleet.__aexit__(None, None, None))
        finally:
            self._runner.close()

    def add_model(self, path: Path | str, name: str, labels: Mapping[str, str] | None = None) -> model_pb2.Model:
        """As Models.add."""
        return self._run(self._fleet.models.add(path, name, labels=labels))

    def models(self, name: str = "") -> Iterator[model_pb2.Model]:
        """As Models.list."""
        return self._iterate(self._fleet.models.list(name))

    def nodes(self, *, include_gone: bool = False) -> Iterator[fleet_pb2.Node]:
        """As Nodes.list."""
        return self._iterate(self._fleet.nodes.list(include_gone=include_gone))

    def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        outputs: Sequence[str] = (),
        priority: int = DEFAULT_PRIORITY,
        timeout_s: float = limits.GRPC_DEADLINE_S,
    ) -> dict[str, NDArray[Any]]:
        """As Inference.infer."""
        call = self._fleet.infer(model, inputs, outputs=outputs, priority=priority, timeout_s=timeout_s)
        return self._run(call)

    def submit_infer(
        self,
        model: str,
        rows: Rows,
        *,
        infer: InferOptions | None = None,
        options: JobOptions | None = None,
    ) -> job_pb2.Job:
        """As Jobs.submit_infer."""
        return self._run(self._fleet.jobs.submit_infer(model, rows, infer=infer, options=options))

    def run_infer(
        self,
        model: str,
        rows: Rows,
        *,
        infer: InferOptions | None = None,
        options: JobOptions | None = None,
        on_progress: Callable[[job_pb2.Job], None] | None = None,
    ) -> job_pb2.Job:
        """As Jobs.run_infer."""
        return self._run(self._fleet.jobs.run_infer(model, rows, infer=infer, options=options, on_progress=on_progress))

    def run_probe(self, task_count: int, *, options: JobOptions | None = None) -> job_pb2.Job:
        """As Jobs.run_probe."""
        return self._run(self._fleet.jobs.run_probe(task_count, options=options))

    def submit_probe(self, task_count: int, *, options: JobOptions | None = None) -> job_pb2.Job:
        """As Jobs.submit_probe."""
        return self._run(self._fleet.jobs.submit_probe(task_count, options=options))

    def job(self, job_id: str) -> job_pb2.Job:
        """As Jobs.get."""
        return self._run(self._fleet.jobs.get(job_id))

    def jobs(self, states: Sequence[job_pb2.JobState.ValueType] = ()) -> Iterator[job_pb2.Job]:
        """As Jobs.list."""
        return self._iterate(self._fleet.jobs.list(states=states))

    def tasks(self, job_id: str) -> Iterator[job_pb2.Task]:
        """As Jobs.tasks."""
        return self._iterate(self._fleet.jobs.tasks(job_id))

    def watch(self, job_id: str, after_sequence: int = 0) -> Iterator[feed_pb2.JobEvent]:
        """As Jobs.watch."""
        return self._iterate(self._fleet.jobs.watch(job_id, after_sequence))

    def wait(self, job: job_pb2.Job | str, on_progress: Callable[[job_pb2.Job], None] | None = None) -> job_pb2.Job:
        """As Jobs.wait."""
        return self._run(self._fleet.jobs.wait(job, on_progress))

    def erase(self, job_id: str) -> job_pb2.Job:
        """As Jobs.erase."""
        return self._run(self._fleet.jobs.erase(job_id))

    def cancel(self, job_id: str, note: str = "") -> job_pb2.Job:
        """As Jobs.cancel."""
        return self._run(self._fleet.jobs.cancel(job_id, note))

    def download_output(self, job_id: str, path: Path | str) -> int:
        """As Jobs.download_output."""
        return self._run(self._fleet.jobs.download_output(job_id, path))

    def read_log(self, *, after: int = 0, up_to: int = 0) -> Iterator[record_pb2.StoredRecord]:
        """As Log.read."""
        return self._iterate(self._fleet.log.read(after=after, up_to=up_to))

    def log_head(self, *, with_state_digest: bool = False) -> log_service_pb2.GetHeadResponse:
        """As Log.head."""
        return self._run(self._fleet.log.head(with_state_digest=with_state_digest))

    def _run(self, call: Coroutine[None, None, _Value]) -> _Value:
        # The caller's context, so that its span is the parent of the call's.
        return self._runner.run(call, context=contextvars.copy_context())

    def _iterate(self, items: AsyncIterator[_Value]) -> Iterator[_Value]:
        while True:
            try:
                yield self._run(_following(items))
            except StopAsyncIteration:
                return


async def _following(items: AsyncIterator[_Value]) -> _Value:
    return await anext(items)

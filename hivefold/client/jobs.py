"""Jobs: submit, follow, cancel, fetch the output."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from hivefold import limits
from hivefold.client import data
from hivefold.client.blobs import Blobs
from hivefold.client.connection import Connection
from hivefold.client.messages import duration, message
from hivefold.client.models import Models
from hivefold.client.paging import pages
from hivefold.client.request_ids import new_request_id
from hivefold.client.sending import Progress
from hivefold.client.watching import resumed, watch_job
from hivefold.errors import InvalidRequestError
from hivefold.v1 import feed_pb2, job_pb2, job_service_pb2
from hivefold.v1.job_service_pb2_grpc import JobServiceStub

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FORMATS: Final = {
    ".npz": job_service_pb2.OUTPUT_FORMAT_NPZ,
    ".npy": job_service_pb2.OUTPUT_FORMAT_NPY,
    ".csv": job_service_pb2.OUTPUT_FORMAT_CSV,
}


_PROGRESS_AFTER_S: Final = 0.2
"""How long a caller that wants progress waits for the job's end before it follows what happens."""
FINAL: Final = frozenset({job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED})
"""States that a job does not leave."""


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What any job may say. An empty `source` is filled in; an empty `request_id` is made."""

    source: str = ""
    priority: job_pb2.Priority.ValueType = job_pb2.PRIORITY_BATCH
    labels: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 0.0
    node_labels: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int = 0
    gpu_count: int = 0
    max_attempts: int = 0
    response_subject: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class InferOptions:
    """What an infer job may say of itself."""

    by_reference: bool = False
    """Nodes read the file at its path; it is not uploaded."""
    member: str = ""
    """The array of a .npz that holds several."""
    outputs: Sequence[str] = ()
    allow_nan: bool = False
    cast: bool = False
    """Values may be rounded to the model's type, e.g. from FP64; without it only what keeps every value is done."""
    target_task_s: float = 0.0
    batch_rows: int = 0
    on_upload: Progress | None = None
    """Gets the bytes sent and the bytes in all while the rows are uploaded; called in a worker thread."""


class Jobs:
    """The fleet's jobs."""

    def __init__(self, connection: Connection, blobs: Blobs, models: Models) -> None:
        self._connection = connection
        self._blobs = blobs
        self._models = models

    async def submit(self, spec: job_pb2.JobSpec, request_id: str = "", *, wait_s: float = 0.0) -> job_pb2.Job:
        """Submits a job; repeating a request_id gives the same job again. Raises hivefold.errors by reason.

        The answer comes when the job is accepted for good, or up to `wait_s` seconds later (at most
        SUBMIT_WAIT_S) if the job ends meanwhile: short jobs need no second call.
        """
        request = message(
            job_service_pb2.SubmitJobRequest,
            request_id=request_id or new_request_id(),
            spec=spec,
            wait=duration("wait_s", wait_s),
        )
        job: job_pb2.Job = (await self._connection.call(JobServiceStub, "SubmitJob", request)).job
        return job

    async def run(
        self, spec: job_pb2.JobSpec, request_id: str = "", on_progress: Callable[[job_pb2.Job], None] | None = None
    ) -> job_pb2.Job:
        """Submits a job and gives it once it has ended, however it ended: submit and wait in one call.

        Goes on by itself after a cut, with the same request: the job runs once. `on_progress` is called
        with each change, if the job lasts. Raises as submit and watch do.
        """
        request_id = request_id or new_request_id()
        wait_s = _PROGRESS_AFTER_S if on_progress is not None else limits.SUBMIT_WAIT_S
        job = await resumed(lambda: self.submit(spec, request_id, wait_s=wait_s))
        return await self.wait(job, on_progress)

    async def submit_infer(
        self,
        model: str,
        rows: data.Rows,
        *,
        infer: InferOptions | None = None,
        options: JobOptions | None = None,
    ) -> job_pb2.Job:
        """Runs every row of a .npy, .npz or .csv file, or of an array, through a model.

        Raises NotFoundError for the model, DataRefusedError for the rows, InvalidRequestError.
        """
        spec = await self._infer_spec(model, rows, infer or InferOptions(), options or JobOptions())
        return await self.submit(spec, options.request_id if options else "")

    async def run_infer(
        self,
        model: str,
        rows: data.Rows,
        *,
        infer: InferOptions | None = None,
        options: JobOptions | None = None,
        on_progress: Callable[[job_pb2.Job], None] | None = None,
    ) -> job_pb2.Job:
        """As submit_infer, but gives the job once it has ended. Raises as submit_infer and run do."""
        spec = await self._infer_spec(model, rows, infer or InferOptions(), options or JobOptions())
        return await self.run(spec, options.request_id if options else "", on_progress)

    async def _infer_spec(
        self, model: str, rows: data.Rows, infer: InferOptions, options: JobOptions
    ) -> job_pb2.JobSpec:
        data_set = await self._data_set(model, rows, infer, options.request_id)
        spec = _job_spec(options)
        spec.infer.CopyFrom(
            message(
                job_pb2.InferSpec,
                model=model,
                data_set=data_set,
                outputs=infer.outputs,
                nan_policy=job_pb2.NAN_POLICY_ALLOW if infer.allow_nan else job_pb2.NAN_POLICY_REJECT,
                target_task_duration=duration("target_task_s", infer.target_task_s),
                batch_rows=infer.batch_rows,
            )
        )
        return spec

    async def _data_set(self, model: str, rows: data.Rows, infer: InferOptions, request_id: str) -> job_pb2.DataSet:
        found = await self._models.get(model)
        if infer.by_reference:
            if not isinstance(rows, Path | str):
                raise InvalidRequestError("by_reference: an array lies in no file; leave it out, or save the array")
            return await data.referenced_file(self._blobs, rows, infer.member, request_id=request_id)
        wanted = data.type_name(found.inputs[0].data_type) if len(found.inputs) == 1 else ""
        return await data.stored(
            self._blobs,
            rows,
            wanted,
            infer.member,
            lossy=infer.cast,
            request_id=request_id,
            on_progress=infer.on_upload,
        )

    async def submit_probe(
        self, task_count: int, *, task_duration_s: float = 0.0, options: JobOptions | None = None
    ) -> job_pb2.Job:
        """Runs tasks that do nothing, to measure and test the fleet."""
        spec = _probe_spec(task_count, task_duration_s, options or JobOptions())
        return await self.submit(spec, options.request_id if options else "")

    async def run_probe(
        self, task_count: int, *, task_duration_s: float = 0.0, options: JobOptions | None = None
    ) -> job_pb2.Job:
        """As submit_probe, but gives the job once it has ended. Raises as run does."""
        spec = _probe_spec(task_count, task_duration_s, options or JobOptions())
        return await self.run(spec, options.request_id if options else "")

    async def get(self, job_id: str) -> job_pb2.Job:
        """One job. Raises NotFoundError."""
        request = job_service_pb2.GetJobRequest(job_id=job_id)
        job: job_pb2.Job = (await self._connection.call(JobServiceStub, "GetJob", request)).job
        return job

    async def list(
        self,
        *,
        states: Sequence[job_pb2.JobState.ValueType] = (),
        labels: Mapping[str, str] | None = None,
        page_size: int = 0,
        on_incomplete: Callable[[], None] | None = None,
    ) -> AsyncIterator[job_pb2.Job]:
        """Jobs, newest first: all, or those in some states or with some labels.

        `page_size` jobs are fetched at once (0: as many as the server gives): a caller that looks at the
        first few asks for no more. `on_incomplete` is called when the coordinator, lately started, says that some
        jobs that ended long ago are missing: list again later.
        """

        def look(response: job_service_pb2.ListJobsResponse) -> None:
            if response.incomplete and on_incomplete is not None:
                on_incomplete()

        request = job_service_pb2.ListJobsRequest(states=states, labels=dict(labels or {}), page_size=page_size)
        async for job in pages(self._connection, JobServiceStub, "ListJobs", request, "jobs", on_page=look):
            yield job

    async def tasks(self, job_id: str) -> AsyncIterator[job_pb2.Task]:
        """The tasks of a job in order. Raises NotFoundError."""
        request = job_service_pb2.ListTasksRequest(job_id=job_id)
        async for task in pages(self._connection, JobServiceStub, "ListTasks", request, "tasks"):
            yield task

    async def why(self, job_id: str, task: int | None = None) -> job_service_pb2.WhyTaskResponse:
        """Why a task (the first that waits) stands where it stands. Raises NotFoundError."""
        request = message(job_service_pb2.WhyTaskRequest, job_id=job_id, task=task)
        why: job_service_pb2.WhyTaskResponse = await self._connection.call(JobServiceStub, "WhyTask", request)
        return why

    async def watch(self, job_id: str, after_sequence: int = 0) -> AsyncIterator[feed_pb2.JobEvent]:
        """What happens to a job, from a position on until it ends; goes on by itself after a cut.

        Raises NotFoundError; UnavailableError when a cut lasts longer than WATCH_RESUME_S.
        """
        async for event in watch_job(self._connection, job_id, after_sequence):
            yield event

    async def wait(
        self, job: job_pb2.Job | str, on_progress: Callable[[job_pb2.Job], None] | None = None
    ) -> job_pb2.Job:
        """The job (or the job of that id) once it has ended, however it ended.

        `on_progress` is called with each change. Raises as watch does.
        """
        known = job if isinstance(job, job_pb2.Job) else await self.get(job)
        if known.state in FINAL:
            return known
        async for event in self.watch(known.job_id, known.sequence):
            known = event.job
            if on_progress is not None:
                on_progress(known)
        return known

    async def cancel(self, job_id: str, note: str = "") -> job_pb2.Job:
        """Cancels an open job. Raises NotFoundError, ConflictError when it has ended otherwise."""
        request = job_service_pb2.CancelJobRequest(request_id=new_request_id(), job_id=job_id, note=note)
        job: job_pb2.Job = (await self._connection.call(JobServiceStub, "CancelJob", request)).job
        return job

    async def erase(self, job_id: str) -> job_pb2.Job:
        """Erases the data of a job that has ended: its uploaded input and its outputs can never be read again.

        Erasing twice is harmless. Raises NotFoundError; ConflictError while it, or another job that reads the same
        input, is open.
        """
        request = job_service_pb2.EraseJobRequest(request_id=new_request_id(), job_id=job_id)
        job: job_pb2.Job = (await self._connection.call(JobServiceStub, "EraseJob", request)).job
        return job

    async def download_output(self, job_id: str, path: Path | str, on_progress: Progress | None = None) -> int:
        """Writes the output of a job that succeeded to a .npz, .npy or .csv file; gives its size in bytes.

        The file appears once it is whole. `on_progress` is called with the bytes so far and in all (0:
        not known). Raises NotFoundError, ConflictError when the job has not succeeded.
        """
        path = Path(path)
        output_format = _FORMATS.get(path.suffix.lower())
        if output_format is None:
            raise InvalidRequestError(f"{path.name}: the output's name must end in one of {', '.join(_FORMATS)}")
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with partial.open("wb") as file:
                written = await self._fetch(job_id, output_format, file, on_progress)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return written

    async def outputs(self, job_id: str, on_progress: Progress | None = None) -> dict[str, NDArray[Any]]:
        """The output of a job that succeeded, as arrays by the tensors' names, rows in input order.

        For what fits into memory; `download_output` is for the rest. Raises as that does.
        """
        with tempfile.TemporaryFile() as file:
            await self._fetch(job_id, job_service_pb2.OUTPUT_FORMAT_NPZ, file, on_progress)
            return await asyncio.to_thread(data.arrays, file)

    async def _fetch(
        self,
        job_id: str,
        output_format: job_service_pb2.OutputFormat.ValueType,
        file: IO[bytes],
        on_progress: Progress | None,
    ) -> int:
        """Writes the output's file; its size."""
        request = job_service_pb2.DownloadOutputRequest(job_id=job_id, format=output_format)
        written = total = 0
        async for response in self._connection.stream(
            JobServiceStub, "DownloadOutput", request, limits.TRANSFER_DEADLINE_S
        ):
            total = total or response.total_bytes
            written += await asyncio.to_thread(file.write, response.data)
            if on_progress is not None:
                on_progress(written, total)
        return written


def _probe_spec(task_count: int, task_duration_s: float, options: JobOptions) -> job_pb2.JobSpec:
    spec = _job_spec(options)
    task_duration = duration("task_duration_s", task_duration_s)
    spec.probe.CopyFrom(message(job_pb2.ProbeSpec, task_count=task_count, task_duration=task_duration))
    return spec


def _job_spec(options: JobOptions) -> job_pb2.JobSpec:
    return message(
        job_pb2.JobSpec,
        source=options.source or default_source(),
        priority=options.priority,
        labels=dict(options.labels),
        timeout=duration("timeout_s", options.timeout_s),
        needs=message(
            job_pb2.Needs,
            node_labels=dict(options.node_labels),
            memory_bytes=options.memory_bytes,
            gpu_count=options.gpu_count,
        ),
        max_attempts=options.max_attempts,
        response_subject=options.response_subject,
    )


@cache
def default_source() -> str:
    """Who asks: "client/user@host"."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"client/{user}@{socket.gethostname()}"

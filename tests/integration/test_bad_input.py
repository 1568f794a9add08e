"""Bad requests to a real fleet: each has its typed error that names the field, in time, and the fleet goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from hivefold.client import Fleet, InferOptions, JobOptions, connect
from hivefold.errors import ConflictError, HivefoldError, InvalidRequestError, LimitExceededError, NotFoundError, Reason
from hivefold.rpc import open_channel
from hivefold.v1 import (
    blob_pb2,
    blob_service_pb2,
    fleet_service_pb2,
    job_pb2,
    job_service_pb2,
    log_service_pb2,
    model_pb2,
    model_service_pb2,
)
from hivefold.v1.blob_service_pb2_grpc import BlobServiceStub
from hivefold.v1.fleet_service_pb2_grpc import FleetServiceStub
from hivefold.v1.job_service_pb2_grpc import JobServiceStub
from hivefold.v1.log_service_pb2_grpc import LogServiceStub
from hivefold.v1.model_service_pb2_grpc import ModelServiceStub
from tests.integration.fleets import RunningFleet
from tests.integration.refusals import ended, everything, first, refused, works

pytestmark = pytest.mark.integration


@pytest.fixture
async def client(fleet: RunningFleet) -> AsyncIterator[Fleet]:
    """A client whose fleet still works after the test."""
    async with connect(directory=fleet.directory) as client:
        yield client
        await works(client)


@pytest.fixture
async def channel(fleet: RunningFleet, client: Fleet) -> AsyncIterator[Any]:
    async with open_channel(fleet.address) as channel:
        yield channel


def probe(**fields: Any) -> job_pb2.JobSpec:
    fields.setdefault("probe", job_pb2.ProbeSpec(task_count=1))
    return job_pb2.JobSpec(**fields)


def infer(**fields: Any) -> job_pb2.JobSpec:
    data_set = job_pb2.DataSet(
        blob=blob_pb2.BlobRef(root="ab" * 32, size_bytes=1600),
        data_type=model_pb2.DATA_TYPE_FP32,
        row_shape=fields.pop("row_shape", [4]),
        row_count=fields.pop("row_count", 100),
        data_offset_bytes=fields.pop("offset", 0),
    )
    return job_pb2.JobSpec(infer=job_pb2.InferSpec(model="any", data_set=data_set, **fields))


MAX = (1 << 64) - 1
SPECS: dict[str, tuple[job_pb2.JobSpec, str]] = {
    "no tasks": (probe(probe=job_pb2.ProbeSpec(task_count=0)), "spec.probe.task_count"),
    "2^31 tasks": (probe(probe=job_pb2.ProbeSpec(task_count=1 << 31)), "spec.probe.task_count"),
    "endless task": (
        probe(probe=job_pb2.ProbeSpec(task_count=1, task_duration=Duration(seconds=1 << 40))),
        "spec.probe.task_duration",
    ),
    "negative timeout": (probe(timeout=Duration(seconds=-5)), "spec.timeout"),
    "timeout of ages": (probe(timeout=Duration(seconds=1 << 33)), "spec.timeout"),
    "2^32 - 1 attempts": (probe(max_attempts=(1 << 32) - 1), "spec.max_attempts"),
    "too many labels": (probe(labels={f"k{n}": "v" for n in range(33)}), "spec.labels"),
    "label too long": (probe(labels={"k": "v" * 300}), "spec.labels['k']"),
    "label with an escape": (probe(labels={"k": "\x1b[2Jv"}), "spec.labels['k']"),
    "source with a line end": (probe(source="me\r\nyou"), "spec.source"),
    "2^32 - 1 GPUs": (probe(needs=job_pb2.Needs(gpu_count=(1 << 32) - 1)), "spec.needs.gpu_count"),
    "2^64 - 1 bytes": (probe(needs=job_pb2.Needs(memory_bytes=MAX)), "spec.needs.memory_bytes"),
    "negative target": (infer(target_task_duration=Duration(nanos=-1)), "spec.infer.target_task_duration"),
    "2^64 - 1 rows": (infer(row_count=MAX), "spec.infer.data_set.row_count"),
    "no rows": (infer(row_count=0), "spec.infer.data_set.row_count"),
    "row of no values": (infer(row_shape=[0]), "spec.infer.data_set.row_shape"),
    "row of 2^128 values": (infer(row_shape=[MAX, MAX]), "spec.infer.data_set.row_shape"),
    "row of 20 dimensions": (infer(row_shape=[1] * 20), "spec.infer.data_set.row_shape"),
    "offset of 2^64 - 1": (infer(offset=MAX), "spec.infer.data_set.data_offset_bytes"),
    "2^32 - 1 batch rows": (infer(batch_rows=(1 << 32) - 1), "spec.infer.batch_rows"),
}


@pytest.mark.parametrize("case", SPECS)
async def test_absurd_parameters_name_their_field(client: Fleet, registered: str, case: str) -> None:
    """A parameter out of its range is refused with its path and its range."""
    spec, field = SPECS[case]
    if spec.HasField("infer"):
        spec.infer.model = registered
    error = await refused(client.jobs.submit(spec), InvalidRequestError)

    assert any(violation.field.startswith(field) for violation in error.violations), error.violations
    assert all("must" in violation.description for violation in error.violations)


SUBJECTS = (
    "work.node-1",
    "results.node-1.j.0.1",
    "events.job.x",
    "heartbeat.node-1",
    "telemetry.node-1",
    "control.node-1",
    "fleet.pulse",
    "blob.chunk." + "0" * 64,
    "log.term",
    "_INBOX.abc",
    "_INBOX_node-1.abc",
    "$JS.API.STREAM.DELETE.HF_WORK",
    "$SYS.REQ.SERVER.PING",
    "a.>",
    "*",
    "a..b",
    ".a",
    "a b",
    "a\r\nPUB work.node-1 0\r\n",
    "a\tb",
    "\N{NO-BREAK SPACE}",
    "a\0b",
    "x" * 300,
)


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_a_response_goes_to_no_subject_of_the_fleet(client: Fleet, subject: str) -> None:
    """No job has messages sent where nodes, streams, the server or others' calls listen."""
    error = await refused(client.jobs.submit(probe(response_subject=subject)), InvalidRequestError)

    assert {violation.field for violation in error.violations} == {"spec.response_subject"}


IDS = ("", ".", "..", "a.b", "a b", "*", ">", "a\r\nb", "A", "ä", "x" * 65, "-a", "a\0", "\N{RIGHT-TO-LEFT OVERRIDE}a")
CALLS: dict[str, Callable[[Any, str], Any]] = {
    "GetJob": lambda c, i: JobServiceStub(c).GetJob(job_service_pb2.GetJobRequest(job_id=i)),
    "ListTasks": lambda c, i: JobServiceStub(c).ListTasks(job_service_pb2.ListTasksRequest(job_id=i)),
    "CancelJob": lambda c, i: JobServiceStub(c).CancelJob(job_service_pb2.CancelJobRequest(job_id=i, request_id="r")),
    "WatchJob": lambda c, i: first(JobServiceStub(c).WatchJob(job_service_pb2.WatchJobRequest(job_id=i))),
    "DownloadOutput": lambda c, i: first(
        JobServiceStub(c).DownloadOutput(job_service_pb2.DownloadOutputRequest(job_id=i))
    ),
    "GetNode": lambda c, i: FleetServiceStub(c).GetNode(fleet_service_pb2.GetNodeRequest(node_id=i)),
    "DrainNode": lambda c, i: FleetServiceStub(c).DrainNode(
        fleet_service_pb2.DrainNodeRequest(node_id=i, request_id="r")
    ),
    "UndrainNode": lambda c, i: FleetServiceStub(c).UndrainNode(
        fleet_service_pb2.UndrainNodeRequest(node_id=i, request_id="r")
    ),
    "GetModel": lambda c, i: ModelServiceStub(c).GetModel(model_service_pb2.GetModelRequest(model=i)),
    "ListModels": lambda c, i: ModelServiceStub(c).ListModels(model_service_pb2.ListModelsRequest(name=i or "a b")),
    "DownloadBlob": lambda c, i: first(BlobServiceStub(c).DownloadBlob(blob_service_pb2.DownloadBlobRequest(root=i))),
}


@pytest.mark.parametrize("call", CALLS)
async def test_malformed_ids_are_refused_by_every_call(channel: Any, call: str) -> None:
    """What is no id never becomes a subject, a key or a path."""
    for malformed in IDS:
        error = await refused(CALLS[call](channel, malformed), InvalidRequestError)
        assert len(error.violations) == 1, (malformed, error)


@pytest.mark.parametrize("request_id", [" ", "a b", "a\r\nb", "ä", "a/b", "*", "x" * 65, "\0"])
async def test_malformed_request_ids_are_refused(client: Fleet, request_id: str) -> None:
    """Request ids are letters, digits and three marks."""
    error = await refused(client.jobs.submit(probe(), request_id), InvalidRequestError)

    assert [violation.field for violation in error.violations] == ["request_id"]


UNKNOWN: dict[str, tuple[Callable[[Fleet], Any], Reason]] = {
    "job": (lambda c: c.jobs.get("j-none"), Reason.JOB_NOT_FOUND),
    "tasks": (lambda c: everything(c.jobs.tasks("j-none")), Reason.JOB_NOT_FOUND),
    "watch": (lambda c: everything(c.jobs.watch("j-none")), Reason.JOB_NOT_FOUND),
    "cancel": (lambda c: c.jobs.cancel("j-none"), Reason.JOB_NOT_FOUND),
    "output": (lambda c: c.jobs.download_output("j-none", "/tmp/none.npz"), Reason.JOB_NOT_FOUND),
    "node": (lambda c: c.nodes.get("node-none"), Reason.NODE_NOT_FOUND),
    "drain": (lambda c: c.nodes.drain("node-none"), Reason.NODE_NOT_FOUND),
    "model": (lambda c: c.models.get("no-model@7"), Reason.MODEL_NOT_FOUND),
    "model to run": (lambda c: c.jobs.submit(infer()), Reason.MODEL_NOT_FOUND),
    "content": (lambda c: everything(c.blobs.download("cd" * 32)), Reason.BLOB_NOT_FOUND),
}


@pytest.mark.parametrize("case", UNKNOWN)
async def test_what_is_not_there_is_said_so(client: Fleet, case: str) -> None:
    """Every call upon something unknown is told what is unknown."""
    call, reason = UNKNOWN[case]

    assert (await refused(call(client), NotFoundError)).reason is reason


async def test_an_unknown_name_lists_no_models(client: Fleet) -> None:
    """A filter that nothing meets gives an empty list."""
    assert await everything(client.models.list("no-model")) == []


@pytest.mark.parametrize("page_token", ["x", "MTI=", "a" * 10_000, "ä", "\0", "../..", " "])
async def test_made_up_page_tokens_are_refused(channel: Any, page_token: str) -> None:
    """Page tokens only come from the same list."""
    for call in (
        JobServiceStub(channel).ListJobs(job_service_pb2.ListJobsRequest(page_token=page_token)),
        FleetServiceStub(channel).ListNodes(fleet_service_pb2.ListNodesRequest(page_token=page_token)),
        ModelServiceStub(channel).ListModels(model_service_pb2.ListModelsRequest(page_token=page_token)),
    ):
        error = await refused(call, InvalidRequestError)
        assert [violation.field for violation in error.violations] == ["page_token"]


async def test_an_absurd_page_size_is_cut(channel: Any) -> None:
    """As AIP has it: a page never holds more than the most, and asking for more is no error."""
    answer = await JobServiceStub(channel).ListJobs(job_service_pb2.ListJobsRequest(page_size=(1 << 32) - 1))

    assert len(answer.jobs) <= 1000


async def test_positions_beyond_the_log_are_refused(channel: Any, client: Fleet) -> None:
    """Nobody waits for records that the caller made up."""
    job = await ended(client, await client.jobs.submit_probe(1))
    calls = (
        LogServiceStub(channel).ReadLog(log_service_pb2.ReadLogRequest(after_sequence=MAX, follow=True)),
        FleetServiceStub(channel).WatchNodes(fleet_service_pb2.WatchNodesRequest(after_sequence=1 << 40)),
        JobServiceStub(channel).WatchJob(job_service_pb2.WatchJobRequest(job_id=job.job_id, after_sequence=1 << 40)),
    )
    for call in calls:
        error = await refused(first(call), InvalidRequestError)
        assert [violation.field for violation in error.violations] == ["after_sequence"]
        assert int(error.metadata["head"]) > 0


NEEDS = {
    "label": (job_pb2.Needs(node_labels={"zone": "moon"}), "node_labels", "zone=moon"),
    "gpu": (job_pb2.Needs(gpu_count=64), "gpu_count", "64"),
    "memory": (job_pb2.Needs(memory_bytes=1 << 49), "memory_bytes", str(1 << 49)),
}


@pytest.mark.parametrize("need", NEEDS)
async def test_needs_that_no_node_can_meet_are_named(client: Fleet, need: str) -> None:
    """The job would wait for ever: it is refused, with the need and what each node has instead."""
    needs, key, value = NEEDS[need]
    error = await refused(client.jobs.submit(probe(needs=needs)), ConflictError)

    assert error.reason is Reason.NEEDS_UNSATISFIABLE
    assert error.metadata[key] == value
    assert "node-1" in error.message


async def test_a_request_id_stands_for_one_spec(client: Fleet) -> None:
    """The same id with another spec is refused and names the job that has it; with the same spec it is that job."""
    spec = probe(source="one")
    job = await client.jobs.submit(spec, "bad-input-reused")
    error = await refused(client.jobs.submit(probe(source="two"), "bad-input-reused"), ConflictError)

    assert (error.reason, error.metadata["job"]) == (Reason.REQUEST_ID_REUSED, job.job_id)
    assert (await client.jobs.submit(spec, "bad-input-reused")).job_id == job.job_id


async def test_ended_jobs_are_not_cancelled(client: Fleet) -> None:
    """Cancelling what has succeeded is refused; cancelling twice is not."""
    done = await ended(client, await client.jobs.submit_probe(1))
    error = await refused(client.jobs.cancel(done.job_id), ConflictError)
    assert (error.reason, error.metadata["state"]) == (Reason.JOB_STATE, "SUCCEEDED")

    running = await client.jobs.submit_probe(1, task_duration_s=60)
    await client.jobs.cancel(running.job_id)
    assert (await client.jobs.cancel(running.job_id)).state == job_pb2.JOB_STATE_CANCELLED


@pytest.mark.parametrize("note", ["a\x1b[2Jb", "a\r\nb", "\0", "x" * 2000])
async def test_notes_are_plain_text(client: Fleet, note: str) -> None:
    """Notes end up on terminals: no control characters, no novels."""
    job = await client.jobs.submit_probe(1, task_duration_s=60)
    for call in (client.jobs.cancel(job.job_id, note), client.nodes.drain("node-1", note)):
        error = await refused(call, InvalidRequestError)
        assert [violation.field for violation in error.violations] == ["note"]
    await client.jobs.cancel(job.job_id, "plain ünïcode is fine")


async def test_a_job_beyond_its_deadline_fails(client: Fleet) -> None:
    """It says how far it was, and the nodes are free again."""
    options = JobOptions(timeout_s=0.5)
    job = await ended(client, await client.jobs.submit_probe(4, task_duration_s=60, options=options))

    assert job.state == job_pb2.JOB_STATE_FAILED
    assert "0 of 4" in job.failure.message
    async with asyncio.timeout(10):
        while any([node.attempts_outstanding async for node in client.nodes.list()]):
            await asyncio.sleep(0.05)


NEGATIVE: dict[str, Callable[[Fleet], Any]] = {
    "task_count": lambda c: c.jobs.submit_probe(-1),
    "task_count beyond 32 bits": lambda c: c.jobs.submit_probe(1 << 40),
    "task_duration_s": lambda c: c.jobs.submit_probe(1, task_duration_s=-1.0),
    "task_duration_s is nan": lambda c: c.jobs.submit_probe(1, task_duration_s=float("nan")),
    "task_duration_s is infinite": lambda c: c.jobs.submit_probe(1, task_duration_s=float("inf")),
    "timeout_s": lambda c: c.jobs.submit_probe(1, options=JobOptions(timeout_s=-1.0)),
    "timeout_s is infinite": lambda c: c.jobs.submit_probe(1, options=JobOptions(timeout_s=float("inf"))),
    "max_attempts": lambda c: c.jobs.submit_probe(1, options=JobOptions(max_attempts=-1)),
    "gpu_count": lambda c: c.jobs.submit_probe(1, options=JobOptions(gpu_count=-1)),
    "memory_bytes": lambda c: c.jobs.submit_probe(1, options=JobOptions(memory_bytes=-1)),
    "priority": lambda c: c.jobs.submit_probe(1, options=JobOptions(priority=77)),  # type: ignore[arg-type]
    "after_sequence": lambda c: everything(c.jobs.watch("j", -1)),
    "after": lambda c: everything(c.log.read(after=-1)),
}


@pytest.mark.parametrize("case", NEGATIVE)
async def test_the_client_refuses_what_no_message_can_hold(client: Fleet, case: str) -> None:
    """Negative and endless numbers end in the same typed error as absurd ones, not in an error of protobuf."""
    error = await refused(NEGATIVE[case](client), InvalidRequestError)

    assert case.split(maxsplit=1)[0].removesuffix("_s") in error.message


async def test_negative_batches_are_refused_by_the_client_too(client: Fleet, registered: str) -> None:
    """As the other numbers."""
    for options in (InferOptions(batch_rows=-1), InferOptions(target_task_s=-1.0)):
        import numpy as np

        rows = np.ones((2, 4), dtype="<f4")
        await refused(client.jobs.submit_infer(registered, rows, infer=options), InvalidRequestError)


async def test_messages_beyond_the_limit_are_refused(channel: Any) -> None:
    """64 MiB in one message, 1 MiB in one piece: the rest of the fleet does not notice."""
    request = job_service_pb2.GetJobRequest(job_id="x" * (65 << 20))
    assert (await refused(JobServiceStub(channel).GetJob(request), HivefoldError)).reason is Reason.LIMIT_EXCEEDED

    pieces = iter([blob_service_pb2.UploadBlobRequest(data=bytes((1 << 20) + 1))])
    error = await refused(BlobServiceStub(channel).UploadBlob(pieces), InvalidRequestError)
    assert [violation.field for violation in error.violations] == ["data"]

    spec = probe(labels={f"k{n}": "v" * 100_000 for n in range(20)})
    too_large = job_service_pb2.SubmitJobRequest(request_id="large", spec=spec)
    await refused(JobServiceStub(channel).SubmitJob(too_large), InvalidRequestError)


async def test_metadata_beyond_the_limit_ends_the_call_alone(channel: Any) -> None:
    """Headers are bounded too."""
    call = JobServiceStub(channel).GetJob(
        job_service_pb2.GetJobRequest(job_id="j"), metadata=(("x-large", "x" * 200_000),)
    )
    await refused(call, LimitExceededError)

"""Bad input: each case has its typed error that names the field or the need, and leaves everything else running."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from hivefold.bus.memory import MemoryBroker
from hivefold.errors import (
    ConflictError,
    DataRefusedError,
    HivefoldError,
    InvalidRequestError,
    LogFullError,
    NotFoundError,
    Reason,
)
from hivefold.ids import NodeId
from hivefold.limits import STREAM_PIECE_MAX_BYTES
from hivefold.log.memory import Fault, MemoryEventLog
from hivefold.rpc import error_from_rpc, open_channel
from hivefold.v1 import (
    blob_pb2,
    blob_service_pb2,
    blob_service_pb2_grpc,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    job_pb2,
    job_service_pb2,
    job_service_pb2_grpc,
    log_service_pb2,
    log_service_pb2_grpc,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
)
from tests.unit.coordinator.fleet import ScriptedNode, until, working
from tests.unit.coordinator.serving import Served, serving

ROOT = "ab" * 32


@pytest.fixture
async def served(log: MemoryEventLog, broker: MemoryBroker) -> AsyncIterator[Served]:
    async with serving(log, broker) as served:
        yield served
        # Whatever was refused, the fleet goes on.
        assert (await served.fleet.jobs.submit_probe(1)).job_id


@pytest.fixture
async def channel(served: Served) -> AsyncIterator[Any]:
    async with open_channel(served.address) as channel:
        yield channel


def infer_spec(**changes: Any) -> job_pb2.JobSpec:
    data_set = job_pb2.DataSet(
        blob=blob_pb2.BlobRef(root=ROOT, size_bytes=1600),
        data_type=model_pb2.DATA_TYPE_FP32,
        row_shape=[4],
        row_count=100,
    )
    spec = job_pb2.JobSpec(infer=job_pb2.InferSpec(model="m", data_set=data_set))
    for name, value in changes.items():
        setattr(spec.infer.data_set, name, value)
    return spec


def probe_spec(**fields: Any) -> job_pb2.JobSpec:
    return job_pb2.JobSpec(probe=job_pb2.ProbeSpec(task_count=1), **fields)


def probe_of(**fields: Any) -> job_pb2.JobSpec:
    return job_pb2.JobSpec(probe=job_pb2.ProbeSpec(**fields))


def by_path(path: str) -> job_pb2.JobSpec:
    spec = infer_spec()
    content = blob_pb2.BlobRef(root=ROOT, size_bytes=1600)
    spec.infer.data_set.file.CopyFrom(job_pb2.FileRef(path=path, content=content))
    return spec


async def refused(call: Any) -> HivefoldError:
    with pytest.raises(grpc.RpcError) as caught:
        await call
    return error_from_rpc(caught.value, "the server")


MALFORMED_SPECS: list[tuple[str, job_pb2.JobSpec, str]] = [
    ("no kind", job_pb2.JobSpec(), "spec.kind"),
    ("no tasks", probe_of(), "spec.probe.task_count"),
    ("absurdly many tasks", probe_of(task_count=2_000_000_000), "spec.probe.task_count"),
    ("negative duration", probe_of(task_count=1, task_duration=Duration(seconds=-1)), "spec.probe.task_duration"),
    ("negative nanos", probe_spec(timeout=Duration(nanos=-1)), "spec.timeout"),
    ("too many nanos", probe_spec(timeout=Duration(nanos=2_000_000_000)), "spec.timeout"),
    ("endless timeout", probe_spec(timeout=Duration(seconds=1 << 60)), "spec.timeout"),
    ("unknown priority", probe_spec(priority=77), "spec.priority"),
    ("absurd attempts", probe_spec(max_attempts=1_000_000), "spec.max_attempts"),
    ("label without key", probe_spec(labels={"": "x"}), "spec.labels"),
    ("label too long", probe_spec(labels={"k": "x" * 10_000}), "spec.labels['k']"),
    ("need without key", probe_spec(needs=job_pb2.Needs(node_labels={"": "x"})), "spec.needs.node_labels"),
    ("absurd memory", probe_spec(needs=job_pb2.Needs(memory_bytes=1 << 62)), "spec.needs.memory_bytes"),
    ("source too long", probe_spec(source="x" * 10_000), "spec.source"),
    ("control characters", probe_spec(source="a\x1b[31mb"), "spec.source"),
    ("wildcard subject", probe_spec(response_subject="a.>"), "spec.response_subject"),
    ("empty token", probe_spec(response_subject="a..b"), "spec.response_subject"),
    ("the fleet's own subject", probe_spec(response_subject="control.n1"), "spec.response_subject"),
    ("the server's own subject", probe_spec(response_subject="$JS.API.STREAM.DELETE.X"), "spec.response_subject"),
    ("no location", job_pb2.JobSpec(infer=job_pb2.InferSpec(model="m")), "spec.infer.data_set.location"),
    ("no type", infer_spec(data_type=model_pb2.DATA_TYPE_UNSPECIFIED), "spec.infer.data_set.data_type"),
    ("byte strings", infer_spec(data_type=model_pb2.DATA_TYPE_BYTES), "spec.infer.data_set.data_type"),
    ("relative path", by_path("rows.npy"), "spec.infer.data_set.file.path"),
    ("path with a zero byte", by_path("/rows\0.npy"), "spec.infer.data_set.file.path"),
]


@pytest.mark.parametrize(("spec", "field"), [case[1:] for case in MALFORMED_SPECS], ids=[c[0] for c in MALFORMED_SPECS])
async def test_malformed_specs_name_the_field(served: Served, spec: job_pb2.JobSpec, field: str) -> None:
    """Every malformed field is named by its path, with the fix."""
    with pytest.raises(InvalidRequestError) as caught:
        await served.fleet.jobs.submit(spec)

    named = [violation.field for violation in caught.value.violations]
    assert any(name.removesuffix(" (us)") == field for name in named), named
    assert all(violation.description for violation in caught.value.violations)


async def test_all_malformed_fields_are_named_at_once(served: Served) -> None:
    """One round trip tells everything that is to be mended."""
    spec = infer_spec(data_type=99)
    spec.infer.model, spec.infer.data_set.blob.root, spec.priority = "No Model!", "xyz", 9  # type: ignore[assignment]
    with pytest.raises(InvalidRequestError) as caught:
        await served.fleet.jobs.submit(spec, "not ok!")

    assert {violation.field for violation in caught.value.violations} == {
        "request_id",
        "spec.infer.model",
        "spec.infer.data_set.blob.root",
        "spec.infer.data_set.data_type",
        "spec.priority",
    }


async def test_an_unknown_model_is_named(served: Served) -> None:
    """Not malformed, but not there."""
    with pytest.raises(NotFoundError) as caught:
        await served.fleet.jobs.submit(infer_spec())

    assert (caught.value.reason, caught.value.metadata) == (Reason.MODEL_NOT_FOUND, {"model": "m"})


async def test_needs_that_no_node_can_meet_are_named(served: Served, broker: MemoryBroker) -> None:
    """The need that is not met is in the message and the metadata."""
    async with working(ScriptedNode(broker, "n1")):
        await until(lambda: NodeId("n1") in served.writer.state.nodes)
        with pytest.raises(ConflictError) as caught:
            await served.fleet.jobs.submit(probe_spec(needs=job_pb2.Needs(gpu_count=8)))

    assert caught.value.reason is Reason.NEEDS_UNSATISFIABLE
    assert caught.value.metadata["gpu_count"] == "8"


async def test_a_full_log_refuses_and_recovers(served: Served, log: MemoryEventLog) -> None:
    """Nothing is recorded, reads go on, and once there is room all goes on."""
    log.inject(Fault.FULL)
    with pytest.raises(LogFullError) as caught:
        await served.fleet.jobs.submit_probe(1)

    assert caught.value.reason is Reason.LOG_FULL
    assert [job async for job in served.fleet.jobs.list()] == []


Call = Callable[..., Any]
MALFORMED_CALLS: list[tuple[str, Call, str]] = [
    (
        "job id",
        lambda c: job_service_pb2_grpc.JobServiceStub(c).GetJob(job_service_pb2.GetJobRequest(job_id="../etc")),
        "job_id",
    ),
    (
        "job to watch",
        lambda c: first(job_service_pb2_grpc.JobServiceStub(c).WatchJob(job_service_pb2.WatchJobRequest(job_id="J"))),
        "job_id",
    ),
    (
        "page token",
        lambda c: job_service_pb2_grpc.JobServiceStub(c).ListJobs(job_service_pb2.ListJobsRequest(page_token="MTI=")),
        "page_token",
    ),
    (
        "state",
        lambda c: job_service_pb2_grpc.JobServiceStub(c).ListJobs(job_service_pb2.ListJobsRequest(states=[99])),  # type: ignore[list-item]
        "states[0]",
    ),
    (
        "output format",
        lambda c: first(
            job_service_pb2_grpc.JobServiceStub(c).DownloadOutput(
                job_service_pb2.DownloadOutputRequest(job_id="j", format=99)  # type: ignore[arg-type]
            )
        ),
        "format",
    ),
    (
        "node id",
        lambda c: fleet_service_pb2_grpc.FleetServiceStub(c).DrainNode(
            fleet_service_pb2.DrainNodeRequest(node_id="n.1", request_id="r")
        ),
        "node_id",
    ),
    (
        "request id",
        lambda c: fleet_service_pb2_grpc.FleetServiceStub(c).DrainNode(
            fleet_service_pb2.DrainNodeRequest(node_id="n1", request_id="r r")
        ),
        "request_id",
    ),
    (
        "model",
        lambda c: model_service_pb2_grpc.ModelServiceStub(c).GetModel(model_service_pb2.GetModelRequest(model="m@0")),
        "model",
    ),
    (
        "range",
        lambda c: first(
            log_service_pb2_grpc.LogServiceStub(c).ReadLog(
                log_service_pb2.ReadLogRequest(after_sequence=9, up_to_sequence=3)
            )
        ),
        "up_to_sequence",
    ),
    (
        "position beyond the end",
        lambda c: first(
            log_service_pb2_grpc.LogServiceStub(c).ReadLog(log_service_pb2.ReadLogRequest(after_sequence=999))
        ),
        "after_sequence",
    ),
    (
        "root",
        lambda c: first(
            blob_service_pb2_grpc.BlobServiceStub(c).DownloadBlob(blob_service_pb2.DownloadBlobRequest(root="zz"))
        ),
        "root",
    ),
    (
        "piece too large",
        lambda c: blob_service_pb2_grpc.BlobServiceStub(c).UploadBlob(
            iter([blob_service_pb2.UploadBlobRequest(data=bytes(STREAM_PIECE_MAX_BYTES + 1))])
        ),
        "data",
    ),
]


async def first(call: Any) -> Any:
    async for response in call:
        return response
    return None


@pytest.mark.parametrize(("call", "field"), [case[1:] for case in MALFORMED_CALLS], ids=[c[0] for c in MALFORMED_CALLS])
async def test_malformed_requests_name_the_field(channel: Any, call: Call, field: str) -> None:
    """Every service says which field and what it takes."""
    error = await refused(call(channel))

    assert isinstance(error, InvalidRequestError), error
    assert [violation.field for violation in error.violations] == [field]


def upload(header: model_service_pb2.UploadModelHeader | None, *data: bytes) -> Iterator[Any]:
    if header is not None:
        yield model_service_pb2.UploadModelRequest(header=header)
    for piece in data:
        yield model_service_pb2.UploadModelRequest(data=piece)


def header(**fields: Any) -> model_service_pb2.UploadModelHeader:
    given: dict[str, Any] = {"request_id": "r", "name": "m", "digest": ROOT, "size_bytes": 4, **fields}
    return model_service_pb2.UploadModelHeader(**given)


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        (lambda: upload(None), "header"),
        (lambda: upload(None, b"data"), "header"),
        (lambda: upload(header(name="Bad Name")), "header.name"),
        (lambda: upload(header(digest="12")), "header.digest"),
        (lambda: upload(header(size_bytes=0)), "header.size_bytes"),
        (lambda: upload(header(size_bytes=1 << 40)), "header.size_bytes"),
        (lambda: upload(header(request_id="")), "header.request_id"),
        (lambda: upload(header(labels={"audit": "ful"})), "header.labels.audit"),
        (lambda: upload(header(labels={"batch.max_rows": "0"})), "header.labels.batch.max_rows"),
    ],
)
async def test_malformed_uploads_name_the_field(channel: Any, requests: Call, field: str) -> None:
    """What is wrong with the header is said before any byte is kept."""
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    error = await refused(stub.UploadModel(requests()))

    assert isinstance(error, InvalidRequestError), error
    assert [violation.field for violation in error.violations] == [field]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([b"onnx"], Reason.DIGEST_MISMATCH),
        ([b"on"], Reason.DATA_INVALID),
        ([b"on", b"nx", b"more"], Reason.DATA_INVALID),
        ([], Reason.DATA_INVALID),
    ],
    ids=["other bytes", "truncated", "too long", "empty"],
)
async def test_uploads_that_are_not_what_they_say_are_refused(
    channel: Any, served: Served, data: list[bytes], reason: Reason
) -> None:
    """Nothing of them is kept."""
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    error = await refused(stub.UploadModel(upload(header(), *data)))

    assert isinstance(error, DataRefusedError)
    assert error.reason is reason
    assert served.chunks.chunks == {}


async def test_a_message_beyond_the_limit_is_typed_too(channel: Any) -> None:
    """gRPC itself refuses it; the error is one of ours all the same."""
    stub = job_service_pb2_grpc.JobServiceStub(channel)
    error = await refused(stub.GetJob(job_service_pb2.GetJobRequest(job_id="x" * (65 * 1024 * 1024)), timeout=30))

    assert error.reason is Reason.LIMIT_EXCEEDED


async def test_page_tokens_hold_for_their_list_only(channel: Any, served: Served) -> None:
    """A token with other filters is refused, not answered with the wrong page."""
    for number in range(3):
        await served.fleet.jobs.submit(probe_spec(labels={"n": str(number)}), f"r{number}")
    stub = job_service_pb2_grpc.JobServiceStub(channel)
    page = await stub.ListJobs(job_service_pb2.ListJobsRequest(page_size=2))

    rest = await stub.ListJobs(job_service_pb2.ListJobsRequest(page_size=2, page_token=page.next_page_token))
    other = job_service_pb2.ListJobsRequest(page_token=page.next_page_token, labels={"n": "1"})
    error = await refused(stub.ListJobs(other))

    assert [len(page.jobs), len(rest.jobs), rest.next_page_token] == [2, 1, ""]
    assert isinstance(error, InvalidRequestError)

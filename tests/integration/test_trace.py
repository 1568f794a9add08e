"""One connected trace, from the client's call to the record of the outcome, at a real OTLP receiver."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from hivefold.client import connect
from hivefold.v1 import job_pb2, record_pb2
from tests.fixtures.onnx_models import doubling_model
from tests.integration.fleets import RunningFleet, running_fleet

pytestmark = pytest.mark.integration
WAIT_S = 30
SUBMIT = "hivefold.v1.JobService/SubmitJob"
CLIENT = """
import json, sys
import numpy as np
from hivefold import observe
from hivefold.client import connect

telemetry = observe.start_telemetry("test-client", "client", "1")
with connect(directory=sys.argv[1]) as fleet:
    fleet.models.add(sys.argv[2], "double")
    with observe.span("ask") as span:
        job = fleet.jobs.submit_infer("double", np.full((100, 4), float(sys.argv[3]), "<f4"))
    ended = fleet.jobs.wait(job.job_id)
telemetry.shutdown()
print(json.dumps([span.traceparent.split("-")[1], job.job_id, ended.state]))
"""


class Receiver(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """Keeps what is exported to it."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        self.metrics: set[tuple[str, str]] = set()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - named by OTLP, for both services
        if isinstance(request, metrics_service_pb2.ExportMetricsServiceRequest):
            for part in request.resource_metrics:
                service = service_name(part.resource)
                self.metrics.update((service, m.name) for scope in part.scope_metrics for m in scope.metrics)
            return metrics_service_pb2.ExportMetricsServiceResponse()
        for part in request.resource_spans:
            service = service_name(part.resource)
            self.spans += [(service, span) for scope in part.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, trace_id: str) -> dict[str, Any]:
        """One span of each name in a trace."""
        return {span.name: span for _, span in self.spans if span.trace_id.hex() == trace_id}


def service_name(resource: Any) -> str:
    return next((a.value.string_value for a in resource.attributes if a.key == "service.name"), "")


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """A receiver that this process and all that it starts export to."""
    receiver = Receiver()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        environment.setenv("OTEL_METRIC_EXPORT_INTERVAL", "500")
        yield receiver
    server.stop(0).wait()


@pytest.fixture(scope="module")
def traced(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    with running_fleet(tmp_path_factory.mktemp("traced") / "hf", node_count=1) as fleet:
        yield fleet


def run_client(fleet: RunningFleet, model: Path, value: str = "1.0") -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, fleet.directory, model, value],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr}\n{fleet.said()}"
    trace_id, job_id, state = json.loads(done.stdout)
    assert state == (job_pb2.JOB_STATE_FAILED if value == "nan" else job_pb2.JOB_STATE_SUCCEEDED)
    return trace_id, job_id


def wait_for(receiver: Receiver, trace_id: str, names: set[str]) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_S
    while not names <= receiver.named(trace_id).keys() and time.monotonic() < deadline:
        time.sleep(0.05)
    return receiver.named(trace_id)


def test_one_trace_spans_client_log_node_and_back(traced: RunningFleet, receiver: Receiver, tmp_path: Path) -> None:
    """From the call over gRPC to its record, over NATS to the node and its actor, and back to the outcome's record."""
    doubling_model(tmp_path / "double.onnx")
    trace_id, _ = run_client(traced, tmp_path / "double.onnx")
    at_node = ["process work", "send work", SUBMIT, SUBMIT, "ask"]
    lines = [
        ["record decision", SUBMIT, SUBMIT, "ask"],
        *([step, *at_node] for step in ("fetch", "infer", "store", "send results")),
        ["record decision", "process results", *at_node],
    ]
    wait_for(receiver, trace_id, {name for line in lines for name in line})
    everything = {span.span_id: span for _, span in receiver.spans if span.trace_id.hex() == trace_id}

    def ancestry(span: Any) -> list[str]:
        """The span's name and those of what it is part of, the outermost last; an unknown parent shows as "?"."""
        above = everything.get(span.parent_span_id)
        if above is None:
            return [span.name, "?"] if span.parent_span_id else [span.name]
        return [span.name, *ancestry(above)]

    found = [ancestry(span) for span in everything.values()]
    assert [line for line in lines if line not in found] == [], sorted(found)
    assert {line[-1] for line in found} == {"ask"}

    services = {service for service, span in receiver.spans if span.trace_id.hex() == trace_id}
    assert services == {"test-client", "hivefold-coordinator", "hivefold-node"}


def test_a_command_of_the_command_line_begins_its_trace(traced: RunningFleet, receiver: Receiver) -> None:
    """A job submitted in a shell is one trace too, from the command on; nothing of it is on standard output."""
    job = traced.json("job", "submit", "probe", "--tasks", "2", "--wait")
    with connect(directory=traced.directory) as fleet:
        records = [record_pb2.Record.FromString(stored.data) for stored in fleet.log.read()]
    submitted = next(r for r in records if r.cause.submit_job.job_id == job["jobId"])
    trace_id = submitted.traceparent.split("-")[1]
    spans = wait_for(receiver, trace_id, {"hivefold job submit", "process results"})

    assert {"hivefold job submit", "process results"} <= spans.keys(), sorted(spans)
    assert not spans["hivefold job submit"].parent_span_id
    services = {service for service, span in receiver.spans if span.trace_id.hex() == trace_id}
    assert services == {"hivefold-cli", "hivefold-coordinator", "hivefold-node"}


def test_records_carry_the_trace(traced: RunningFleet, tmp_path: Path) -> None:
    """From a trace to the records that it led to, and back."""
    doubling_model(tmp_path / "double.onnx")
    trace_id, job_id = run_client(traced, tmp_path / "double.onnx")
    with connect(directory=traced.directory) as fleet:
        records = [record_pb2.Record.FromString(stored.data) for stored in fleet.log.read()]

    submitted = next(r for r in records if r.cause.submit_job.job_id == job_id)
    outcomes = [r for r in records if r.cause.WhichOneof("body") == "report_outcomes"]
    assert submitted.traceparent.split("-")[1] == trace_id
    of_job = [record for record in outcomes if any(r.job_id == job_id for r in record.cause.report_outcomes.reports)]
    assert {record.traceparent.split("-")[1] for record in of_job} == {trace_id}


def test_log_lines_carry_the_trace_and_the_job(traced: RunningFleet, tmp_path: Path) -> None:
    """A line that a node wrote about an attempt is found by its trace and by its job."""
    doubling_model(tmp_path / "double.onnx")
    trace_id, job_id = run_client(traced, tmp_path / "double.onnx", "nan")
    lines = [json.loads(line) for line in (traced.directory / "logs" / "node-1.log").read_text().splitlines()]

    failed = [line for line in lines if line["event"] == "attempt.failed"]
    assert {(line["trace_id"], line["job_id"], line["reason"]) for line in failed} == {(trace_id, job_id, "NAN_FOUND")}


def test_metrics_come_from_nodes_and_the_coordinator(traced: RunningFleet, receiver: Receiver) -> None:
    """The same variables switch metrics on: calls of the coordinator, readings of the node."""
    with connect(directory=traced.directory) as fleet:
        assert list(fleet.nodes.list())
    deadline = time.monotonic() + WAIT_S
    wanted = {("hivefold-coordinator", "rpc.server.call.duration"), ("hivefold-node", "system.cpu.utilization")}
    while not wanted <= receiver.metrics and time.monotonic() < deadline:
        time.sleep(0.05)

    assert wanted <= receiver.metrics, sorted(receiver.metrics)

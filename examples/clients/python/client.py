"""A client of hivefold with nothing but grpcio and protobuf: copy this file and change `main`.

Run in the repository's root with the addresses of the coordinators, commas between, and the name of a model: it
prints one JSON object. The modules that end in _pb2 and _pb2_grpc are made from the protos: README.md.
"""

from __future__ import annotations

import json
import struct
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from error_details_pb2 import ErrorInfo, Status
from google.protobuf.duration_pb2 import Duration
from health_pb2 import HealthCheckRequest, HealthCheckResponse
from health_pb2_grpc import HealthStub
from inference import open_inference_pb2, open_inference_pb2_grpc

from hivefold.v1 import feed_pb2, fleet_pb2, fleet_service_pb2, job_pb2, job_service_pb2
from hivefold.v1.fleet_service_pb2_grpc import FleetServiceStub
from hivefold.v1.job_service_pb2_grpc import JobServiceStub

SERVICE_CONFIG = Path("hivefold/rpc/service_config.json")
DEADLINE_S = 10.0
"""Of each call, all its tries together."""
PATIENCE_S = 30.0
"""How long a leader is looked for, and how long a watch may be without an event."""
PAUSE_S = 0.5
OPTIONS = [("grpc.keepalive_time_ms", 60_000), ("grpc.keepalive_timeout_ms", 10_000), ("grpc.enable_http_proxy", 0)]
FINAL = (feed_pb2.JOB_EVENT_TYPE_SUCCEEDED, feed_pb2.JOB_EVENT_TYPE_FAILED, feed_pb2.JOB_EVENT_TYPE_CANCELLED)


def error_info(error: Any) -> ErrorInfo:
    """The reason and what belongs to it, from the google.rpc.Status in the trailing metadata; empty without one."""
    info = ErrorInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in Status.FromString(value).details:
                if detail.Is(ErrorInfo.DESCRIPTOR):
                    detail.Unpack(info)
    return info


class Fleet:
    """The coordinators: calls go to the one that leads, also after it changed."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses
        self._service_config = SERVICE_CONFIG.read_text(encoding="utf-8")
        self._channels: dict[str, grpc.Channel] = {}
        self.target = addresses[0]

    def channel(self, address: str) -> grpc.Channel:
        """The channel to an address, with the fleet's own rules on which calls are tried again, and how."""
        if address not in self._channels:
            options = [("grpc.service_config", self._service_config), *OPTIONS]
            self._channels[address] = grpc.insecure_channel(address, options)
        return self._channels[address]

    def turn(self, error: Any) -> None:
        """Goes to the leader that the error names, else to the next coordinator; raises what is no matter of that."""
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise error
        leader = error_info(error).metadata.get("leader", "")
        if leader and leader != self.target:
            self.target = leader
            return
        time.sleep(PAUSE_S)
        at = self._addresses.index(self.target) if self.target in self._addresses else -1
        self.target = self._addresses[(at + 1) % len(self._addresses)]

    def call(self, stub: type[Any], method: str, request: Any) -> Any:
        """The answer of the coordinator that leads. Mutating requests carry a request_id: sent twice, recorded once."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return getattr(stub(self.channel(self.target)), method)(request, timeout=DEADLINE_S)
            except grpc.RpcError as error:
                if time.monotonic() > until:
                    raise
                self.turn(error)

    def nodes(self, page_size: int) -> Iterator[tuple[int, fleet_pb2.Node]]:
        """All nodes with the number of the page that each was on, one call a page."""
        page, token = 0, ""
        while page == 0 or token:
            page += 1
            request = fleet_service_pb2.ListNodesRequest(page_size=page_size, page_token=token)
            response = self.call(FleetServiceStub, "ListNodes", request)
            yield from ((page, node) for node in response.nodes)
            token = response.next_page_token

    def submit(self, request_id: str, spec: job_pb2.JobSpec) -> job_pb2.Job:
        """The job; the same one for the same request_id."""
        request = job_service_pb2.SubmitJobRequest(request_id=request_id, spec=spec)
        job: job_pb2.Job = self.call(JobServiceStub, "SubmitJob", request).job
        return job

    def watch(self, job_id: str) -> Iterator[tuple[int, feed_pb2.JobEvent]]:
        """Every event of a job, once and in order, with the number of cuts before it; goes on after each cut."""
        seen, cuts, until = 0, 0, time.monotonic() + PATIENCE_S
        while True:
            request = job_service_pb2.WatchJobRequest(job_id=job_id, after_sequence=seen)
            try:
                for response in JobServiceStub(self.channel(self.target)).WatchJob(request):
                    for event in response.events:
                        yield cuts, event
                        if event.type in FINAL:
                            return
                    # A response holds all events of one position of the log: a cut never falls between them.
                    seen, until = response.events[-1].sequence, time.monotonic() + PATIENCE_S
            except grpc.RpcError as error:
                if time.monotonic() > until:
                    raise
                cuts += 1
                self.turn(error)
            else:
                return


def infer(channel: grpc.Channel, model: str) -> list[float]:
    """One row of 1, 2, 3, ... through a model of one FP32 input, by the Open Inference Protocol; its first output."""
    stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    takes = stub.ModelMetadata(open_inference_pb2.ModelMetadataRequest(name=model), timeout=DEADLINE_S).inputs[0]
    shape = [max(size, 1) for size in takes.shape]  # -1: any size
    count = 1
    for size in shape:
        count *= size
    request = open_inference_pb2.ModelInferRequest(
        model_name=model,
        inputs=[open_inference_pb2.ModelInferRequest.InferInputTensor(name=takes.name, datatype="FP32", shape=shape)],
        raw_input_contents=[struct.pack(f"<{count}f", *range(1, count + 1))],
    )
    (raw, *_) = stub.ModelInfer(request, timeout=DEADLINE_S).raw_output_contents
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def main(addresses: str, model: str) -> None:
    fleet = Fleet(addresses.split(","))
    health = fleet.call(HealthStub, "Check", HealthCheckRequest())
    nodes = list(fleet.nodes(page_size=1))

    spec = job_pb2.JobSpec(
        probe=job_pb2.ProbeSpec(task_count=24, task_duration=Duration(nanos=250_000_000)),
        source="examples/clients/python",
        timeout=Duration(seconds=120),  # the job's own deadline
    )
    request_id = str(uuid.uuid4())
    job = fleet.submit(request_id, spec)
    again = fleet.submit(request_id, spec)
    print(f"submitted {job.job_id}", file=sys.stderr, flush=True)
    events = list(fleet.watch(job.job_id))

    try:
        fleet.call(JobServiceStub, "GetJob", job_service_pb2.GetJobRequest(job_id="no-such-job"))
        refused = ErrorInfo()
    except grpc.RpcError as error:
        refused = error_info(error)

    online = next(node for _, node in nodes if node.state == fleet_pb2.NODE_STATE_ONLINE)
    found = {
        "health": HealthCheckResponse.ServingStatus.Name(health.status),
        "nodes": [node.spec.node_id for _, node in nodes],
        "pages": nodes[-1][0],
        "job": job.job_id,
        "same_job": job.job_id == again.job_id,
        "sequences": [event.sequence for _, event in events],
        "cuts": events[-1][0],
        "state": job_pb2.JobState.Name(events[-1][1].job.state),
        "leader": fleet.target,
        "refused": {"reason": refused.reason, "metadata": dict(refused.metadata)},
        "outputs": infer(fleet.channel(online.spec.grpc_address), model),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

"""The Open Inference Protocol as every node of a real fleet serves it, called with nothing but gRPC."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from hivefold.client import connect
from hivefold.errors import DataRefusedError, NotFoundError
from hivefold.oip import schema
from hivefold.oip.requests import InferRequest, write_request
from hivefold.oip.responses import read_response
from hivefold.oip.tensors import WireTensor, from_array, to_array
from hivefold.rpc import open_sync_channel
from hivefold.rpc.errors import STATUS_KEY
from tests.fixtures.onnx_models import doubling_model
from tests.integration.fleets import RunningFleet, running_fleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ROWS = np.arange(8, dtype="<f4").reshape(2, 4)


class Node:
    """Calls to one node."""

    def __init__(self, address: str) -> None:
        self.channel = open_sync_channel(address)

    def call(self, method: str, **fields: Any) -> Any:
        request, response = schema.method(method)
        rpc: Any = self.channel.unary_unary(
            f"/{schema.SERVICE}/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return rpc(request(**fields), timeout=20)

    def infer(self, *inputs: WireTensor, timeout_s: float = 20, **more: Any) -> Any:
        request = InferRequest("registered", "", "", inputs, ())._replace(**more)
        rpc: Any = self.channel.unary_unary(
            f"/{schema.SERVICE}/ModelInfer",
            request_serializer=schema.ModelInferRequest.SerializeToString,
            response_deserializer=schema.ModelInferResponse.FromString,
        )
        return rpc(write_request(request), timeout=timeout_s)

    def counted(self, model: str) -> int:
        (stats,) = self.call("ModelStatistics", name=model).model_stats
        return int(stats.inference_count)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def nodes(fleet: RunningFleet, registered: str) -> Iterator[list[Node]]:
    found = [Node(entry["grpc"]) for entry in fleet.endpoints["nodes"]]
    yield found
    for node in found:
        node.channel.close()


def details(error: grpc.RpcError) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.BadRequest]:
    call: Any = error
    packed = dict(call.trailing_metadata())[STATUS_KEY]
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in Status.FromString(packed).details:
        for known in (info, bad):
            if detail.Is(known.DESCRIPTOR):
                detail.Unpack(known)
    return info, bad


def test_every_node_answers(nodes: list[Node]) -> None:
    """Whichever is asked, the answer is the same, raw, and has the request's id."""
    for node in nodes:
        response = node.infer(from_array("x", ROWS), id="r-1", model_version="1")
        (output,) = read_response(response)
        np.testing.assert_array_equal(to_array(output), ROWS * 2)
        assert (response.id, response.model_name, response.model_version) == ("r-1", "registered", "1")


def test_a_model_is_loaded_by_one_node_and_the_others_pass_requests_on(tmp_path: Path) -> None:
    """Rows are counted where they are inferred; a killed node's share is taken over, and no request fails."""
    doubling_model(tmp_path / "m.onnx")
    with running_fleet(tmp_path / "hf", node_count=3) as fleet:
        with connect(directory=fleet.directory) as client:
            client.models.add(tmp_path / "m.onnx", "double")
        entries = fleet.endpoints["nodes"]
        nodes = [Node(entry["grpc"]) for entry in entries]
        nodes[0].infer(from_array("x", ROWS), model_name="double")
        until(lambda: any(node["loadedModels"] for node in fleet.json("node", "ls")["nodes"]))
        for _ in range(10):
            nodes[1].infer(from_array("x", ROWS), model_name="double")
        assert [node.counted("double") for node in nodes] == [22, 0, 0]

        subprocess.run(["kill", "-9", str(entries[0]["pid"])], check=True)
        for _ in range(20):
            (output,) = read_response(nodes[1].infer(from_array("x", ROWS), model_name="double"))
            np.testing.assert_array_equal(to_array(output), ROWS * 2)
        assert nodes[1].counted("double") + nodes[2].counted("double") == 40


def test_what_is_wrong_with_a_request_is_named(nodes: list[Node]) -> None:
    """INVALID_ARGUMENT with the field, NOT_FOUND for a model that nobody registered."""
    with pytest.raises(grpc.RpcError) as refusal:
        nodes[0].infer(from_array("x", ROWS.reshape(4, 2)))
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    info, bad = details(refusal.value)
    assert (info.reason, info.domain) == ("SHAPE_MISMATCH", "hivefold")
    assert [violation.field for violation in bad.field_violations] == ["inputs[0].shape"]
    with pytest.raises(grpc.RpcError) as refusal:
        nodes[1].infer(from_array("x", ROWS), model_name="nothing")
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
    assert details(refusal.value)[0].reason == "MODEL_NOT_FOUND"


def test_the_server_says_what_it_is(nodes: list[Node]) -> None:
    """Alive, ready, its extensions; the models that it knows, and what they take."""
    node = nodes[0]
    assert node.call("ServerLive").live
    assert node.call("ServerReady").ready
    assert list(node.call("ServerMetadata").extensions) == ["model_repository", "statistics"]
    assert node.call("ModelReady", name="registered").ready
    assert not node.call("ModelReady", name="nothing").ready
    described = node.call("ModelMetadata", name="registered")
    assert (described.platform, list(described.versions)) == ("onnx_onnxv1", ["1"])
    assert [(spec.name, spec.datatype, list(spec.shape)) for spec in described.inputs] == [("x", "FP32", [-1, 4])]


def test_a_model_is_loaded_and_released_by_name(nodes: list[Node]) -> None:
    """On the node that is asked; the next request loads it again."""
    node = nodes[2]

    def states() -> dict[str, str]:
        return {model.name: model.state for model in node.call("RepositoryIndex").models}

    node.call("RepositoryModelLoad", model_name="registered")
    assert states()["registered"] == "READY"
    assert "registered" in {model.name for model in node.call("RepositoryIndex", ready=True).models}
    node.call("RepositoryModelUnload", model_name="registered")
    assert states()["registered"] == "UNAVAILABLE"
    assert node.infer(from_array("x", ROWS))


def test_a_stream_answers_in_order_and_survives_a_bad_request(nodes: list[Node]) -> None:
    """The bad one's answer says why, and has its id."""
    rpc: Any = nodes[0].channel.stream_stream(
        f"/{schema.SERVICE}/ModelStreamInfer",
        request_serializer=schema.ModelInferRequest.SerializeToString,
        response_deserializer=schema.ModelStreamInferResponse.FromString,
    )
    tensors = [from_array("x", ROWS + index) for index in range(40)]
    tensors[7] = from_array("x", ROWS.astype("<f8"))
    asked = [
        write_request(InferRequest("registered", "", f"{index}", (tensor,), ())) for index, tensor in enumerate(tensors)
    ]
    answers = list(rpc(iter(asked), timeout=30))
    assert [answer.infer_response.id for answer in answers] == [f"{index}" for index in range(40)]
    assert [index for index, answer in enumerate(answers) if answer.error_message] == [7]
    assert "inputs[0].datatype" in answers[7].error_message
    for index in (0, 39):
        (output,) = read_response(answers[index].infer_response)
        np.testing.assert_array_equal(to_array(output), (ROWS + index) * 2)


def test_a_deadline_that_is_over_is_the_answer(nodes: list[Node]) -> None:
    """Also one that the request itself carries."""
    with pytest.raises(grpc.RpcError) as over:
        nodes[0].infer(from_array("x", ROWS), timeout_us=1)
    assert over.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_ten_megabytes_come_back_as_they_went(nodes: list[Node]) -> None:
    """A large tensor is cut out of its message where it lies."""
    rows = np.arange(2_621_440, dtype="<f4").reshape(-1, 4)
    (output,) = read_response(nodes[0].infer(from_array("x", rows)))
    np.testing.assert_array_equal(to_array(output), rows * 2)


def test_reflection_describes_the_service(nodes: list[Node]) -> None:
    """From its own pool, beside the services of the default one."""
    stub = reflection_pb2_grpc.ServerReflectionStub(nodes[0].channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=schema.SERVICE),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="hivefold.v1.NodeService"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.Nothing"),
    ]
    listed, ours, node, nothing = stub.ServerReflectionInfo(iter(asked), timeout=10)
    services = {service.name for service in listed.list_services_response.service}
    assert {schema.SERVICE, "hivefold.v1.NodeService", "grpc.health.v1.Health"} <= services
    (file,) = ours.file_descriptor_response.file_descriptor_proto
    assert descriptor_pb2.FileDescriptorProto.FromString(file).package == "inference"
    assert node.file_descriptor_response.file_descriptor_proto
    assert nothing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_health_knows_the_service_and_its_models(nodes: list[Node]) -> None:
    """A model is SERVING once it is loaded on that node, and unknown where nobody asked for it."""
    node = nodes[0]
    node.infer(from_array("x", ROWS))
    node.call("RepositoryModelLoad", model_name="registered")
    stub = health_pb2_grpc.HealthStub(node.channel)

    def state(service: str) -> int:
        return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status)

    serving = health_pb2.HealthCheckResponse.SERVING
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="models/registered"), timeout=20)
    assert any(response.status == serving for response in watch)
    assert state(schema.SERVICE) == serving
    with pytest.raises(grpc.RpcError) as refusal:
        state("models/nothing")
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


def test_the_client_finds_a_node_by_itself(fleet: RunningFleet, registered: str) -> None:
    """Arrays in, arrays out, errors by reason; also many at a time with asyncio."""
    with connect(directory=fleet.directory) as client:
        np.testing.assert_array_equal(client.infer("registered", ROWS)["y"], ROWS * 2)
        np.testing.assert_array_equal(client.infer("registered@1", {"x": ROWS}, outputs=("y",))["y"], ROWS * 2)
        with pytest.raises(DataRefusedError, match="datatype"):
            client.infer("registered", ROWS.astype("<f8"))
        with pytest.raises(NotFoundError):
            client.infer("nothing", ROWS)

    async def many() -> None:
        async with connect(directory=fleet.directory) as found:
            answers = await asyncio.gather(*(found.infer("registered", ROWS + index) for index in range(40)))
            for index, answer in enumerate(answers):
                np.testing.assert_array_equal(answer["y"], (ROWS + index) * 2)

    asyncio.run(many())


def test_another_library_of_the_protocol_can_be_imported_beside(fleet: RunningFleet) -> None:
    """It registers the same names in the default pool; ours is apart."""
    program = """
from google.protobuf import descriptor_pb2, descriptor_pool
from hivefold.oip import schema
import node.app
file = descriptor_pb2.FileDescriptorProto()
schema.POOL.FindFileByName("inference/open_inference.proto").CopyToProto(file)
file.name = "grpc_service.proto"
descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).resolve().parents[2])

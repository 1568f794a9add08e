"""Model files that are none, on a real fleet: refused with what to do, and never run."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import onnx
import pytest
from onnx import TensorProto, helper

from hivefold.client import Fleet, connect
from hivefold.errors import ConflictError, DataRefusedError, HivefoldError, InvalidRequestError, Reason
from hivefold.rpc import open_channel
from hivefold.v1 import job_pb2, model_service_pb2
from hivefold.v1.model_service_pb2_grpc import ModelServiceStub
from tests.fixtures.onnx_models import doubling_model, save_model
from tests.integration.fleets import RunningFleet
from tests.integration.refusals import ended, everything, infers, refused

pytestmark = pytest.mark.integration


@pytest.fixture
async def client(fleet: RunningFleet, registered: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    """A client whose fleet still infers after the test."""
    async with connect(directory=fleet.directory) as client:
        yield client
        await infers(client, registered, tmp_path)


def _external_initializer(path: Path) -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4], [1.0] * 4)
    weights.ClearField("float_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="/etc/passwd")
    _save(path, [helper.make_node("Add", ["x", "w"], ["y"])], [weights])


def _external_constant(path: Path) -> None:
    value = helper.make_tensor("v", TensorProto.FLOAT, [4], [1.0] * 4)
    value.ClearField("float_data")
    value.data_location = TensorProto.EXTERNAL
    value.external_data.add(key="location", value="../../etc/shadow")
    constant = helper.make_node("Constant", [], ["w"], value=value)
    _save(path, [constant, helper.make_node("Add", ["x", "w"], ["y"])], [])


def _save(path: Path, operators: list[onnx.NodeProto], weights: list[TensorProto]) -> None:
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])
    graph = helper.make_graph(operators, "g", [rows], [result], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())


def _truncated(path: Path) -> None:
    path.write_bytes(doubling_model(path)[:-20])


FILES: Final[dict[str, tuple[Callable[[Path], Any], Reason, str]]] = {
    "empty": (lambda path: path.write_bytes(b""), Reason.INVALID_ARGUMENT, "size_bytes"),
    "text": (lambda path: path.write_text("not a model\n" * 10), Reason.MODEL_INVALID, "text file"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"a": [1, 2]})), Reason.MODEL_INVALID, "pickle"),
    "PyTorch": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(500)), Reason.MODEL_INVALID, "torch.onnx.export"),
    "zeros": (lambda path: path.write_bytes(bytes(1000)), Reason.MODEL_INVALID, "Check"),
    "truncated": (_truncated, Reason.MODEL_INVALID, "copied whole"),
    "external initializer": (_external_initializer, Reason.MODEL_EXTERNAL_DATA, "onnx.save"),
    "external constant": (_external_constant, Reason.MODEL_EXTERNAL_DATA, "onnx.save"),
    "missing": (lambda path: None, Reason.FILE_UNREADABLE, "path"),
    "folder": (lambda path: path.mkdir(), Reason.FILE_UNREADABLE, "path"),
}


@pytest.mark.parametrize("case", FILES)
async def test_files_that_are_no_model_are_refused(client: Fleet, tmp_path: Path, case: str) -> None:
    """With the reason and the next step; no version of the name appears."""
    write, reason, advice = FILES[case]
    path = tmp_path / "bad.onnx"
    write(path)
    error = await refused(client.models.add(path, "bad"), HivefoldError)

    assert error.reason is reason
    assert isinstance(error, DataRefusedError | InvalidRequestError)
    assert advice in error.message
    assert await everything(client.models.list("bad")) == []


@pytest.mark.parametrize("name", ["", "A", "a.b", "a b", "a@1", "a/b", "../a", "ä", "x" * 65, "a\n"])
async def test_malformed_names_are_refused(client: Fleet, tmp_path: Path, name: str) -> None:
    """A name is a subject and a key: letters, digits and two marks."""
    path = tmp_path / "m.onnx"
    doubling_model(path)
    error = await refused(client.models.add(path, name), InvalidRequestError)

    assert [violation.field for violation in error.violations] == ["header.name"]


@pytest.mark.parametrize("labels", [{f"k{n}": "v" for n in range(40)}, {"k": "v" * 300}, {"k": "\x1b[2J"}, {"": "v"}])
async def test_labels_are_bounded(client: Fleet, tmp_path: Path, labels: dict[str, str]) -> None:
    """They are in the log and in every list of models."""
    path = tmp_path / "m.onnx"
    doubling_model(path, "labels")
    error = await refused(client.models.add(path, "labels", labels=labels), InvalidRequestError)

    assert "labels" in error.violations[0].field


def _requests(digest: str, size_bytes: int, *pieces: bytes) -> Iterator[model_service_pb2.UploadModelRequest]:
    header = model_service_pb2.UploadModelHeader(request_id="r", name="other", digest=digest, size_bytes=size_bytes)
    yield model_service_pb2.UploadModelRequest(header=header)
    for piece in pieces:
        yield model_service_pb2.UploadModelRequest(data=piece)


async def test_bytes_other_than_announced_are_refused(client: Fleet, fleet: RunningFleet, tmp_path: Path) -> None:
    """A wrong digest, less, more, and a piece that is too large."""
    data = doubling_model(tmp_path / "m.onnx")
    digest = hashlib.sha256(data).hexdigest()
    cases = (
        (_requests("ab" * 32, len(data), data), Reason.DIGEST_MISMATCH),
        (_requests(digest, len(data) + 1, data), Reason.DATA_INVALID),
        (_requests(digest, len(data) - 1, data), Reason.DATA_INVALID),
        (_requests(digest, 2 << 20, bytes((1 << 20) + 1)), Reason.INVALID_ARGUMENT),
    )
    async with open_channel(fleet.address) as channel:
        for requests, reason in cases:
            error = await refused(ModelServiceStub(channel).UploadModel(requests), HivefoldError)
            assert error.reason is reason, error
    assert await everything(client.models.list("other")) == []


async def test_other_content_is_another_version(client: Fleet, tmp_path: Path) -> None:
    """A version never changes: the same content gives it again, other content the next one."""
    path = tmp_path / "m.onnx"
    doubling_model(path, "one")
    assert (await client.models.add(path, "versions")).version == 1
    assert (await client.models.add(path, "versions")).version == 1
    doubling_model(path, "two")
    assert (await client.models.add(path, "versions")).version == 2
    assert (await client.models.get("versions@1")).digest != (await client.models.get("versions")).digest


async def test_a_model_that_fails_when_it_runs_fails_its_job(client: Fleet, tmp_path: Path) -> None:
    """The model is well-formed and cannot work: the job says what the runtime said, and where."""
    path = tmp_path / "reshape.onnx"
    seven = helper.make_tensor("seven", TensorProto.INT64, [2], [-1, 7])
    _save(path, [helper.make_node("Reshape", ["x", "seven"], ["y"])], [seven])
    await client.models.add(path, "reshape")
    rows = tmp_path / "rows.csv"
    rows.write_text("1,2,3,4\n" * 10)
    job = await ended(client, await client.jobs.submit_infer("reshape", rows))

    assert job.state == job_pb2.JOB_STATE_FAILED
    assert "Reshape" in job.failure.message or "reshape" in job.failure.message
    assert job.failure.metadata["task"] == "0"
    error = await refused(client.jobs.download_output(job.job_id, tmp_path / "out.npz"), ConflictError)
    assert (error.reason, list(tmp_path.glob("*out*"))) == (Reason.JOB_STATE, [])


async def test_a_model_that_the_runtime_refuses_fails_its_job(client: Fleet, tmp_path: Path) -> None:
    """What only the runtime can know (an operator of no such name) is said by the job."""
    path = tmp_path / "unknown.onnx"
    save_model(path, [("NoSuchOperator", ["x"], "y")], [None, 4])
    await client.models.add(path, "unknown-operator")
    rows = tmp_path / "rows.csv"
    rows.write_text("1,2,3,4\n" * 10)
    job = await ended(client, await client.jobs.submit_infer("unknown-operator", rows))

    assert job.state == job_pb2.JOB_STATE_FAILED
    assert "NoSuchOperator" in job.failure.message


async def test_models_of_two_inputs_are_refused_for_batch_inference(client: Fleet, tmp_path: Path) -> None:
    """One data set feeds one input: said at submit, with the inputs' names."""
    path = tmp_path / "two.onnx"
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4]) for name in ("a", "b")]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "g", inputs, [result])
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )
    await client.models.add(path, "two-inputs")
    rows = tmp_path / "rows.csv"
    rows.write_text("1,2,3,4\n" * 10)
    error = await refused(client.jobs.submit_infer("two-inputs", rows), DataRefusedError)

    assert error.reason is Reason.SHAPE_MISMATCH
    assert "a, b" in error.message

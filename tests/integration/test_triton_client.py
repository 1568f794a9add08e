"""Triton's own client against a running fleet: the protocol as its users speak it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from hivefold.client import connect
from hivefold.oip.schema import SERVICE
from hivefold.oip.tensors import DATA_TYPES
from hivefold.rpc import open_sync_channel
from tests.fixtures.onnx_models import doubling_model, save_model
from tests.integration.fleets import RunningFleet, running_fleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".triton-venv" / "bin" / "python"
SUITE = ROOT / "tests" / "conformance" / "triton" / "suite.py"
ONNX_TYPES = {"FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE", "BF16": "BFLOAT16", "BYTES": "STRING"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """A fleet that nobody else gives models: versions count from 1."""
    with running_fleet(tmp_path_factory.mktemp("suite-fleet") / "hf", node_count=2) as running:
        yield running


@pytest.fixture(scope="module")
def models(fleet: RunningFleet, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The models that the suite asks for."""
    folder = tmp_path_factory.mktemp("suite")
    files = [("double", folder / "d1.onnx"), ("double", folder / "d2.onnx")]
    doubling_model(files[0][1], "first")
    doubling_model(files[1][1], "second")
    for data_type in DATA_TYPES:
        kind = getattr(TensorProto, ONNX_TYPES.get(data_type, data_type))
        files.append((f"identity_{data_type.lower()}", folder / f"{data_type}.onnx"))
        save_model(files[-1][1], [("Identity", ["x"], "y")], [None, 2], x=kind, y=kind)
    files.append(("fixed", folder / "fixed.onnx"))
    save_model(files[-1][1], [("Add", ["x", "x"], "y")], [2, 2])
    files.append(("pair", folder / "pair.onnx"))
    save_pair(files[-1][1])
    with connect(directory=fleet.directory) as client:
        for name, path in files:
            client.models.add(path, name)


def save_pair(path: Path) -> None:
    """Two inputs, two outputs, of two types."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["a", "axes"], ["sum"], keepdims=1),
            helper.make_node("Identity", ["b"], ["kept"]),
        ],
        "pair",
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, [None, 2]),
            helper.make_tensor_value_info("b", TensorProto.INT64, [None, 1]),
        ],
        [
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [None, 1]),
            helper.make_tensor_value_info("kept", TensorProto.INT64, [None, 1]),
        ],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


GOLDEN = {
    "raw": "0a06646f75626c651201321a08676f6c64656e2d312a0d0a01791204465033321a020204"
    "32200000000000000040000080400000c04000000041000020410000404100006041",
    "typed": "0a06646f75626c651201321a08676f6c64656e2d322a0d0a01791204465033321a020104"
    "321000000040000080400000c04000000041",
    "wanted_output": "0a04706169721201312a110a046b6570741205494e5436341a020201321005000000000000000600000000000000",
    "text": "0a0e6964656e746974795f62797465731201312a0e0a0179120542595445531a020102320e010000006105000000c3a9e8aa9e",
    "bf16": "0a0d6964656e746974795f626631361201312a0d0a01791204424631361a0201023204803f20c0",
}
"""The response to each recorded request, byte by byte."""


@pytest.mark.parametrize("name", GOLDEN)
def test_recorded_requests_get_the_recorded_responses(fleet: RunningFleet, models: None, name: str) -> None:
    """The bytes that Triton's client 2.73 sent, and what it got: a later version must answer the same."""
    recorded = ROOT / "tests" / "golden" / "requests" / f"{name}.bin"
    with open_sync_channel(fleet.endpoints["nodes"][0]["grpc"]) as channel:
        rpc: Any = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        answer: bytes = rpc(recorded.read_bytes(), timeout=20)
    assert answer.hex() == GOLDEN[name]


def test_every_check_of_the_suite_passes(fleet: RunningFleet, models: None) -> None:
    """On a node; none is passed over."""
    if not PYTHON.exists():
        assert not os.environ.get("CI"), "run: make triton"
        pytest.skip("the client is not installed: make triton")
    address = fleet.endpoints["nodes"][1]["grpc"]
    done = subprocess.run(
        [PYTHON, SUITE, address],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )

    assert done.returncode == 0, f"{fleet.said()}\n{done.stdout}\n{done.stderr}"
    (listed,) = re.findall(r"^CHECKS.*?^\)", SUITE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(done.stdout.split()) == len(re.findall(r"^    \w+,$", listed, re.MULTILINE)) + 1

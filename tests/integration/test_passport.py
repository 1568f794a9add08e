"""A model's passport travels with it: written when it is added, refused when unsafe, shown as it was recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from hivefold.client import connect
from hivefold.errors import DataRefusedError, Reason
from hivefold.models.passport.inspection import passport
from hivefold.models.passport.messages import from_proto
from tests.fixtures.onnx_models import doubling_model
from tests.fixtures.passports import MODELS
from tests.integration.fleets import RunningFleet
from tests.integration.refusals import refused

pytestmark = pytest.mark.integration


async def test_a_model_keeps_its_passport(fleet: RunningFleet) -> None:
    """What `model add` answers, what `model show` gives and what the file says are the same."""
    path = MODELS / "cnn.onnx"
    async with connect(directory=fleet.directory) as client:
        added = await client.models.add(path, "cnn-passport")
        shown = await client.models.get("cnn-passport")

    assert shown.passport == added.passport
    assert from_proto(shown.passport) == passport(path)


async def test_a_job_does_not_carry_the_passport(fleet: RunningFleet, tmp_path: Path) -> None:
    """Work messages and jobs name the model without it: they are many."""
    path = tmp_path / "m.onnx"
    doubling_model(path, "lean")
    data = tmp_path / "rows.csv"
    data.write_text("1,2,3,4\n")
    async with connect(directory=fleet.directory) as client:
        await client.models.add(path, "lean")
        job = await client.jobs.run_infer("lean", data)

    assert job.model.name == "lean"
    assert not job.model.HasField("passport")


async def test_a_bomb_is_refused_by_the_coordinator(fleet: RunningFleet, tmp_path: Path) -> None:
    """A client that does not look first changes nothing: a tensor of terabytes made from two numbers."""
    shape = helper.make_tensor("s", TensorProto.INT64, [2], [1 << 20, 1 << 20])
    node = helper.make_node("ConstantOfShape", ["s"], ["y"])
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4]) for name in "xy"]
    graph = helper.make_graph([node], "g", value[:1], value[1:], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    path = tmp_path / "bomb.onnx"
    path.write_bytes(model.SerializeToString())
    async with connect(directory=fleet.directory) as client:
        error = await refused(client.models.add(path, "bomb"), DataRefusedError)

    assert (error.reason, error.metadata["code"]) == (Reason.MODEL_UNSAFE, "onnx-bomb")
    assert "path" not in error.metadata

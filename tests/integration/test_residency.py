"""More models than a node has room for, asked for by many at once: every answer comes, and nobody starves."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from actors.backends.onnxruntime import OnnxRuntimeBackend
from hivefold.blobs.content import upload_bytes
from hivefold.client import connect
from hivefold.errors import LimitExceededError
from hivefold.oip.responses import read_response
from hivefold.oip.tensors import from_array, to_array
from hivefold.v1 import model_pb2
from node.residency.policy import HOST, Memory, Rules
from tests.fixtures.onnx_models import weighty_model
from tests.fixtures.serving import Serving, serving
from tests.integration.fleets import running_fleet
from tests.integration.test_inference import Node

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

MODELS, ROOM, CLIENTS = 20, 5, 8
ROWS = np.arange(8, dtype="<f4").reshape(2, 4)


@asynccontextmanager
async def node_of_many(folder: Path, rules: Rules, **more: object) -> AsyncIterator[Serving]:
    """A node with MODELS registered: `times-3` triples, and so on. Real sessions, each with its own weights."""
    backend = OnnxRuntimeBackend(1)
    async with serving(folder, backend=backend, rules=rules, **more) as node:  # type: ignore[arg-type]
        for factor in range(1, MODELS + 1):
            content = weighty_model(folder / "m.onnx", factor, 8 * 1024)
            model = model_pb2.Model(
                name=f"times-{factor}", version=1, digest=hashlib.sha256(content).hexdigest(), platform="onnx"
            )
            model.artifact.CopyFrom(await upload_bytes(node.chunks, content))
            model.inputs.add(name="x", data_type=model_pb2.DATA_TYPE_FP32, shape=(-1, 4))
            model.outputs.add(name="y", data_type=model_pb2.DATA_TYPE_FP32, shape=(-1, 4))
            node.models.known[model.name] = model
        yield node


async def ask_for_all(node: Serving, client: int, seconds: float) -> int:
    """Asks for one model after another, from a place of its own on; how many right answers came."""
    count = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until or not count:
        factor = 1 + (client * 7 + count * 3) % MODELS
        (y,) = await node.infer(from_array("x", ROWS), model_name=f"times-{factor}", timeout_s=60)
        np.testing.assert_allclose(to_array(y), ROWS * factor, rtol=1e-5)
        count += 1
    return count


async def test_twenty_models_with_room_for_five_serve_eight_clients(tmp_path: Path) -> None:
    """No error, never more models than there is room for, and the slowest client gets half of the mean at least."""
    most = 0

    def memory() -> Memory:
        nonlocal most
        most = max(most, len(node.inference.shelf.resident()))
        return Memory({}, {})

    async with node_of_many(tmp_path, Rules(models=ROOM), memory=memory) as node:
        counts = await asyncio.gather(*(ask_for_all(node, client, 4.0) for client in range(CLIENTS)))
        assert most == ROOM
        assert min(counts) >= sum(counts) / CLIENTS / 2
        assert sum(counts) >= MODELS


async def test_the_room_may_as_well_be_memory(tmp_path: Path) -> None:
    """As above, where what models take is measured, and the budget is for five of them as they were measured."""
    budget = 0
    most = 0

    def memory() -> Memory:
        nonlocal most
        most = max(most, sum(resident.held_bytes for resident in node.inference.shelf.resident()))
        return Memory({}, {HOST: budget} if budget else {})

    async with node_of_many(tmp_path, Rules(), memory=memory) as node:
        shelf = node.inference.shelf
        for factor in range(1, MODELS + 1):
            await ask_for_all(node, factor, 0)
        one = max(shelf.expected_bytes(model) for model in node.models.known.values())
        budget = ROOM * one
        for resident in shelf.resident():
            shelf.release(resident.digest)
        while shelf.resident():
            await asyncio.sleep(0.01)
        most = 0
        counts = await asyncio.gather(*(ask_for_all(node, client, 4.0) for client in range(CLIENTS)))
        assert 0 < most <= budget
        assert min(counts) >= sum(counts) / CLIENTS / 2


async def test_pinned_models_leave_the_others_to_be_refused(tmp_path: Path) -> None:
    """A model that cannot come in, whoever goes, is refused at once with the reason; the pinned ones go on."""
    async with node_of_many(tmp_path, Rules(models=2)) as node:
        shelf = node.inference.shelf
        for name in ("times-1", "times-2"):
            shelf.keep(node.models.known[name], pinned=True)
        while sum(resident.ready for resident in shelf.resident()) < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(LimitExceededError, match="2 are pinned"):
            await node.infer(from_array("x", ROWS), model_name="times-3")
        assert await node.infer(from_array("x", ROWS), model_name="times-2")


async def test_a_fleet_serves_more_models_than_it_has_room_for(tmp_path: Path) -> None:
    """Over the wire, to one node with room for two: every answer is right, and no more than two are loaded."""
    with running_fleet(tmp_path / "hf", "--models", "2", node_count=1) as fleet:
        async with connect(directory=fleet.directory) as client:
            for factor in range(1, 7):
                weighty_model(tmp_path / "m.onnx", factor)
                await client.models.add(tmp_path / "m.onnx", f"times-{factor}")

            async def ask(number: int) -> None:
                for factor in range(1, 7):
                    turned = 1 + (factor + number) % 6
                    answer = await client.infer(f"times-{turned}", ROWS)
                    np.testing.assert_allclose(answer["y"], ROWS * turned, rtol=1e-5)

            await asyncio.gather(*(ask(number) for number in range(4)))
            (node,) = fleet.json("node", "ls")["nodes"]
            assert len(node["loadedModels"]) <= 2


def test_a_node_without_room_passes_a_request_to_one_that_has_some(tmp_path: Path) -> None:
    """Its only place has a pinned model: another one is loaded beside it, and the answer comes all the same."""
    with (
        running_fleet(tmp_path / "hf", "--models", "1", node_count=2) as fleet,
        connect(directory=fleet.directory) as client,
    ):
        for factor in (1, 2):
            weighty_model(tmp_path / "m.onnx", factor)
            client.models.add(tmp_path / "m.onnx", f"times-{factor}")
        client.models.keep("times-1", pinned=True)
        while not any(node.loaded_models for node in client.nodes.list()):
            time.sleep(0.05)
        (full,) = (node.spec.grpc_address for node in client.nodes.list() if node.loaded_models)

        node = Node(full)
        (y,) = read_response(node.infer(from_array("x", ROWS), model_name="times-2"))
        np.testing.assert_allclose(to_array(y), ROWS * 2, rtol=1e-5)
        assert node.counted("times-2") == 0
        node.channel.close()

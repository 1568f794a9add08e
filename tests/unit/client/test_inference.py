"""The client's way to a node, over nodes that do what the test says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from hivefold.client.inference import Inference
from hivefold.errors import DataRefusedError, HivefoldError, InvalidRequestError, Reason
from hivefold.oip.requests import address
from hivefold.oip.responses import OutputTensor, ResponseWriter
from hivefold.rpc.errors import error_for
from hivefold.v1 import fleet_pb2, model_pb2

ROWS = np.ones((2, 4), "<f4")
ONLINE, SUSPECTED = fleet_pb2.NODE_STATE_ONLINE, fleet_pb2.NODE_STATE_SUSPECTED


class Fleet:
    """A coordinator's answers, and nodes that answer, or refuse as often as the test says."""

    def __init__(self, *inputs: str) -> None:
        self.model = model_pb2.Model(name="m", version=3, digest="d")
        for name in inputs or ("x",):
            self.model.inputs.add(name=name, data_type=model_pb2.DATA_TYPE_FP32, shape=(-1, 4))
        self.known: list[fleet_pb2.Node] = []
        self.refusals: dict[str, list[HivefoldError]] = {}
        self.asked: list[str] = []
        self.data = b""

    def node(self, name: str, *refusals: HivefoldError, holds: bool = False, state: Any = ONLINE) -> None:
        spec = fleet_pb2.NodeSpec(node_id=name, grpc_address=name)
        self.known.append(fleet_pb2.Node(spec=spec, state=state, loaded_models=["d"] if holds else []))
        self.refusals[name] = list(refusals)

    async def get(self, model: str) -> model_pb2.Model:
        return self.model

    async def list(self) -> AsyncIterator[fleet_pb2.Node]:
        for node in self.known:
            yield node

    async def call(self, target: str, data: bytes, *, timeout_s: float, mark: object = None) -> bytes:
        self.asked.append(target)
        self.data = data
        if self.refusals[target]:
            raise self.refusals[target].pop(0)
        return ResponseWriter("m", "3").write("", [("y", "FP32")], [OutputTensor((2, 4), ROWS.tobytes())])

    def client(self) -> Inference:
        found = Inference(self, self)  # type: ignore[arg-type]
        found._passing = self  # type: ignore[assignment]
        return found


async def test_a_node_that_has_the_model_is_asked() -> None:
    """One that is not online never; the version is settled before."""
    fleet = Fleet()
    fleet.node("a")
    fleet.node("b", holds=True)
    fleet.node("c", holds=True, state=SUSPECTED)
    for _ in range(5):
        np.testing.assert_array_equal((await fleet.client().infer("m", ROWS))["y"], ROWS)
    assert set(fleet.asked) == {"b"}
    assert address(fleet.data).model_version == "3"


async def test_a_lost_node_is_passed_over_at_once() -> None:
    """Each is asked once; when all are lost, that is said."""
    fleet = Fleet()
    lost = [error_for(Reason.SERVER_UNAVAILABLE, "gone") for _ in range(4)]
    fleet.node("a", lost[0], holds=True)
    fleet.node("b", lost[1], holds=True)
    fleet.node("c")
    assert await fleet.client().infer("m", ROWS)
    assert sorted(fleet.asked[:2]) == ["a", "b"]
    assert fleet.asked[2:] == ["c"]
    fleet.refusals = {"a": [lost[0]], "b": [lost[1]], "c": [lost[2]]}
    with pytest.raises(HivefoldError) as error:
        await fleet.client().infer("m", ROWS)
    assert error.value.reason is Reason.SERVER_UNAVAILABLE


async def test_the_last_that_can_be_asked_says_why_nobody_answers() -> None:
    """Nodes that are not online are no reason to hide what became of the one that was asked."""
    fleet = Fleet()
    fleet.node("a", error_for(Reason.NODE_LOST, "gone"))
    fleet.node("b", state=SUSPECTED)
    with pytest.raises(HivefoldError, match="gone"):
        await fleet.client().infer("m", ROWS)
    assert fleet.asked == ["a"]


async def test_a_full_node_is_asked_again_when_it_said() -> None:
    """Within the caller's time, and not beyond."""
    fleet = Fleet()
    fleet.node("a", *[error_for(Reason.SERVER_BUSY, "full", {"retry_ms": "1"}) for _ in range(2)])
    assert await fleet.client().infer("m", ROWS)
    assert fleet.asked == ["a"] * 3
    fleet.refusals["a"] = [error_for(Reason.SERVER_BUSY, "full", {"retry_ms": "60000"})]
    with pytest.raises(HivefoldError) as error:
        await fleet.client().infer("m", ROWS, timeout_s=1)
    assert error.value.reason is Reason.SERVER_BUSY


async def test_what_is_wrong_with_the_request_is_not_asked_twice() -> None:
    """It is wrong on every node."""
    fleet = Fleet()
    fleet.node("a", DataRefusedError("no"))
    fleet.node("b", DataRefusedError("no"))
    with pytest.raises(DataRefusedError):
        await fleet.client().infer("m", ROWS)
    assert len(fleet.asked) == 1


async def test_several_inputs_need_their_names() -> None:
    """Which array is which cannot be guessed."""
    fleet = Fleet("a", "b")
    fleet.node("n")
    with pytest.raises(InvalidRequestError, match="a, b"):
        await fleet.client().infer("m", ROWS)
    assert await fleet.client().infer("m", {"b": ROWS, "a": ROWS})

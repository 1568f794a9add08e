"""Requests to a node that passes them on, while the nodes that answer them are killed, one after the other."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import pytest

from hivefold.client import connect
from hivefold.oip import schema
from hivefold.oip.requests import InferRequest, write_request
from hivefold.oip.responses import read_response
from hivefold.oip.tensors import from_array, to_array
from hivefold.rpc import open_sync_channel
from tests.fixtures.onnx_models import doubling_model
from tests.integration.fleets import RunningFleet, running_fleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

CLIENTS = 8


class Asking:
    """Clients that ask one node without a pause, each for rows of its own."""

    def __init__(self, address: str) -> None:
        self._channel = open_sync_channel(address)
        self._infer: Any = self._channel.unary_unary(
            f"/{schema.SERVICE}/ModelInfer",
            request_serializer=schema.ModelInferRequest.SerializeToString,
            response_deserializer=schema.ModelInferResponse.FromString,
        )
        self._over = threading.Event()
        self.right = 0
        self.wrong: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]

    def _ask(self, number: int) -> None:
        while not self._over.is_set():
            rows = np.full((1, 4), number * 1e4 + self.right % 1000, "<f4")
            try:
                response = self._infer(
                    write_request(InferRequest("m", "", "", (from_array("x", rows),), ())), timeout=30
                )
                (output,) = read_response(response)
                if np.array_equal(to_array(output), rows * 2):
                    self.right += 1
                else:
                    self.wrong.append(f"{to_array(output)} for {rows}")
            except grpc.RpcError as error:
                self.wrong.append(str(error))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._channel.close()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def called(address: str, method: str, **fields: str) -> Any:
    """What a node answers."""
    with open_sync_channel(address) as channel:
        request, response = schema.method(method)
        call: Any = channel.unary_unary(
            f"/{schema.SERVICE}/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return call(request(**fields), timeout=20)


def inferred(address: str) -> int:
    """Rows that a node answered itself."""
    return sum(int(stats.inference_count) for stats in called(address, "ModelStatistics", name="m").model_stats)


def unload(address: str) -> None:
    """Tells a node to let the model go; whether it has it does not matter."""
    called(address, "RepositoryModelUnload", model_name="m")


def online(fleet: RunningFleet) -> dict[str, tuple[str, int]]:
    """Where the nodes answer that are there, and their processes, by name."""
    specs = [node["spec"] for node in fleet.json("node", "ls")["nodes"] if node["state"].endswith("ONLINE")]
    return {spec["nodeId"]: (spec["grpcAddress"], int(spec["pid"])) for spec in specs}


def counts(fleet: RunningFleet) -> dict[str, int]:
    """Rows that each node answered since it was started; empty until all three are there."""
    try:
        found = {name: inferred(address) for name, (address, _) in online(fleet).items()}
    except grpc.RpcError:
        return {}
    return found if len(found) == 3 else {}


def test_no_request_fails_nor_is_answered_wrongly_while_the_nodes_that_hold_the_model_are_killed(
    tmp_path: Path,
) -> None:
    """What was passed on to a node that died is asked of another, or answered by the node that was asked first."""
    doubling_model(tmp_path / "m.onnx")
    with running_fleet(tmp_path / "hf", node_count=3) as fleet:
        with connect(directory=fleet.directory) as client:
            client.models.add(tmp_path / "m.onnx", "m")
        until(lambda: len(online(fleet)) == 3)
        with Asking(online(fleet)["node-1"][0]) as first:
            until(lambda: first.right > 0)
        for _ in range(3):
            kill_while_asking(fleet)


def kill_while_asking(fleet: RunningFleet) -> None:
    """Clients ask a node that passes their requests on to one that has the model, until that is killed,
    and for a while after.

    A node that has not heard of the other yet loads the model itself: it is told to let go, until it passes on.
    """
    until(lambda: bool(counts(fleet)))
    before, nodes = counts(fleet), online(fleet)
    holders = [name for name, rows in before.items() if rows]
    asked = nodes[min(set(before) - set(holders))][0]

    def passed_on() -> bool:
        if sum(inferred(nodes[name][0]) for name in holders) > sum(before.values()) + CLIENTS:
            return True
        unload(asked)
        return False

    with Asking(asked) as clients:
        until(passed_on)
        os.kill(nodes[holders[0]][1], signal.SIGKILL)
        reached = clients.right
        until(lambda: clients.right > reached + 20 * CLIENTS)
    assert clients.wrong == []

"""The audit of inference on a real fleet: what it says is what clients saw, whoever is killed meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from hivefold.client import connect
from hivefold.oip.digests import TensorDigester
from hivefold.oip.requests import InferRequest, write_request
from hivefold.oip.schema import SERVICE
from hivefold.oip.tensors import WireTensor, from_array
from hivefold.rpc import open_sync_channel
from hivefold.v1 import audit_pb2
from tests.fixtures.onnx_models import doubling_model
from tests.integration.fleets import RunningFleet, hivefold, running_fleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


class Client:
    """Asks one node, and counts what came of it."""

    def __init__(self, address: str, model: str) -> None:
        self._channel = open_sync_channel(address)
        self._call: Any = self._channel.unary_unary(f"/{SERVICE}/ModelInfer")
        self._model = model
        self.answered = 0
        self.failed = 0

    def ask(self, count: int, *, columns: int = 4) -> None:
        for number in range(count):
            tensor = from_array("x", np.full((1, columns), self.answered + number, "<f4"))
            request = write_request(InferRequest(self._model, "", "", (tensor,), ()))
            try:
                self._call(request.SerializeToString(), timeout=30)
                self.answered += 1
            except grpc.RpcError:
                self.failed += 1

    def close(self) -> None:
        self._channel.close()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def only(report: Any) -> Any:
    """The one model's share of the one node that answered."""
    (share,) = report["models"]
    return share


def is_recorded(fleet: RunningFleet, requests: int) -> bool:
    """Whether the log knows of so many requests; a coordinator that is away cannot tell yet."""
    done = fleet.run("audit", "inference", "-o", "json")
    return done.returncode == 0 and f'"requests": {requests},' in done.stdout


def requests_in(path: Path) -> int:
    """Requests that a batch on disk counts; one that is being written counts none."""
    batch = audit_pb2.InferenceBatch.FromString(b"" if path.suffix == ".partial" else path.read_bytes())
    return sum(window.request_count for window in batch.windows)


def test_the_log_counts_what_clients_saw_though_coordinator_and_server_are_killed(tmp_path: Path) -> None:
    """Every request once, digests of each that its client can compute again; from a file, the same."""
    doubling_model(tmp_path / "m.onnx")
    with running_fleet(tmp_path / "hf", node_count=2) as fleet:
        with connect(directory=fleet.directory) as client:
            client.models.add(tmp_path / "m.onnx", "m", labels={"audit": "full"})
        asker = Client(fleet.endpoints["nodes"][0]["grpc"], "m")
        asker.ask(50)
        for killed in ("coordinator", "nats"):
            os.kill(fleet.endpoints["pids"][killed], signal.SIGKILL)
            asker.ask(100)
            asker.ask(3, columns=5)
        asker.ask(50)
        assert (asker.answered, asker.failed) == (300, 6)
        until(lambda: is_recorded(fleet, 306))

        kept, file = tmp_path / "batches", tmp_path / "fleet.hflog"
        live = fleet.json("audit", "inference", "--requests", "--limit", "1000", "--save", kept)
        share, batches = only(live), live["batches"]
        assert (share["requests"], share["failures"]) == (306, {"SHAPE_MISMATCH": 6})
        assert (share["recorded"], share["unrecorded"], share["rows"]) == (306, 0, 300)
        assert (batches["verified"], batches["missing"], batches["gone"]) == (batches["recorded"], 0, 0)

        first, request = live["requests"][0], WireTensor("x", "FP32", (1, 4), bytes(16))
        digester = TensorDigester(bytes.fromhex(first["salt"]))
        assert first["inputDigest"] == digester.digest([request]).hex()
        assert first["outputDigest"] == digester.digest([request._replace(name="y")]).hex()
        assert first["caller"].startswith("ipv4:127.0.0.1:")

        assert fleet.run("log", "export", file).returncode == 0
        assert fleet.run("log", "verify", file).returncode == 0
        told = fleet.run("log", "explain", "m")
        assert "requests for m@1 on node-1" in told.stdout
        asker.close()

    offline = hivefold("audit", "inference", file, "--batches", kept, "--verify", "-o", "json")
    assert f'"recorded": {batches["recorded"]},' in offline.stdout
    assert f'"verified": {batches["verified"]},' in offline.stdout
    forged = kept.read_bytes().replace(b"ipv4:127.0.0.1", b"ipv4:127.0.0.2", 1)
    kept.write_bytes(forged)
    caught = hivefold("audit", "inference", file, "--batches", kept, "--verify", "-o", "json")
    assert (caught.returncode, '"altered": 1,' in caught.stdout) == (1, True)


def test_a_killed_node_loses_the_last_second_at_most(tmp_path: Path) -> None:
    """What was in a batch is recorded, though the server was away and the node died before it came back."""
    doubling_model(tmp_path / "m.onnx")
    with running_fleet(tmp_path / "hf", node_count=1) as fleet:
        with connect(directory=fleet.directory) as client:
            client.models.add(tmp_path / "m.onnx", "m")
        node = fleet.endpoints["nodes"][0]
        asker = Client(node["grpc"], "m")
        asker.ask(20)
        until(lambda: is_recorded(fleet, 20))

        spool = fleet.directory / "state" / "node-1" / "inference-audit"
        os.kill(fleet.endpoints["pids"]["nats"], signal.SIGSTOP)
        asker.ask(30)
        until(lambda: sum(requests_in(path) for path in spool.iterdir()) == 30)
        os.kill(fleet.endpoints["pids"]["node-1"], signal.SIGKILL)
        os.kill(fleet.endpoints["pids"]["nats"], signal.SIGCONT)

        until(lambda: is_recorded(fleet, 50))
        assert asker.failed == 0
        asker.close()

"""Aliases and replicas on a real fleet: a killed node, a moved alias, and what the log says of both afterwards."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hivefold.client import SyncFleet, connect
from hivefold.errors import ConflictError, NotFoundError, UnavailableError
from hivefold.oip.tensors import from_array
from tests.fixtures.onnx_models import doubling_model
from tests.integration.fleets import RunningFleet, running_fleet
from tests.integration.test_inference import Node

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

ROW = np.ones((1, 4), dtype="<f4")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """A fleet of three nodes with two versions of a model, for tests that kill."""
    folder = tmp_path_factory.mktemp("registry")
    with running_fleet(folder / "fleet") as fleet:
        for number in (1, 2):
            doubling_model(folder / f"{number}.onnx", f"v{number}")
            fleet.json("model", "add", "digits", folder / f"{number}.onnx", "--licence", "MIT", "--source", "tests")
        yield fleet


def eventually(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 90
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def loaded_on(fleet: RunningFleet, model: str) -> set[str]:
    """The nodes that keep the model and have it loaded."""
    replicas = fleet.json("model", "ps", model)["replicas"]
    return {r["nodeId"] for r in replicas if r["kept"] and r["state"] == "REPLICA_STATE_LOADED"}


def stored(client: SyncFleet, root: str) -> bool:
    try:
        return any(True for _ in client.blobs.download(root))
    except NotFoundError:
        return False


def test_replicas_are_restored_when_a_node_is_killed(own: RunningFleet) -> None:
    """Two nodes have the model again soon, whichever; nobody asked for anything but the two."""
    own.json("model", "load", "digits@1", "--replicas", "2", "--pin")
    before = eventually(lambda: len(nodes := loaded_on(own, "digits@1")) == 2 and nodes)
    killed = min(before)
    own_pid = own.endpoints["pids"][killed]
    boot = own.json("node", "show", killed)["spec"]["bootId"]
    os.kill(own_pid, signal.SIGKILL)

    def restored() -> bool:
        shown = own.json("node", "show", killed)
        anew = shown["spec"]["bootId"] != boot or shown["state"] != "NODE_STATE_ONLINE"
        return anew and len(loaded_on(own, "digits@1")) == 2

    eventually(restored)
    assert own.json("model", "show", "digits@1")["residency"]["pinned"] is True
    own.json("model", "unload", "digits@1")
    eventually(lambda: own.json("model", "ps", "digits@1")["replicas"] == [])


def test_a_load_that_waits_ends_once_the_nodes_have_the_model(own: RunningFleet) -> None:
    """Then it is loaded where it is wanted; what can never be is told node by node when the time is over."""
    kept = own.json("model", "load", "digits@2", "--replicas", "2", "--wait", "--timeout", "90")
    nodes = loaded_on(own, "digits@2")
    wanting = ("--wait", "--timeout", "0.5", "-o", "json")
    crowded = own.run("model", "load", "digits@2", "--replicas", "4", *wanting)
    unmet = own.run("model", "load", "digits@2", "--replicas", "1", "--label", "zone=a", *wanting)
    with connect(own.address) as client, pytest.raises(UnavailableError) as caught:
        client.models.wait_loaded("digits", timeout_s=0)
    own.json("model", "unload", "digits@2")
    with connect(own.address) as client, pytest.raises(ConflictError):
        client.models.wait_loaded("digits@2")

    assert (kept["model"], kept["loadedCount"], set(kept["nodeIds"])) == ("digits@2", 2, nodes)
    assert (crowded.returncode, crowded.stdout, unmet.returncode) == (4, "", 4)
    assert "no other node: start one" in json.loads(crowded.stderr)["error"]["message"]
    error = json.loads(unmet.stderr)["error"]
    assert (error["reason"], error["metadata"]["replica_count"]) == ("DEADLINE_EXCEEDED", "1")
    assert "needs label zone=a" in error["message"]
    assert "needs label zone=a" in caught.value.message


def test_a_moved_alias_counts_at_once_and_for_ever_in_the_log(own: RunningFleet, tmp_path: Path) -> None:
    """Every node serves the new version; the log tells what was in production before, also from a file alone."""
    then = own.json("model", "alias", "digits@prod", "1", "--expect", "0")["sequence"]
    nodes = [Node(entry["grpc"]) for entry in own.endpoints["nodes"]]

    def versions() -> list[str]:
        return [node.infer(from_array("x", ROW), model_name="digits@prod").model_version for node in nodes]

    eventually(lambda: versions() == ["1"] * 3)
    moved = own.json("model", "alias", "digits@prod", "2", "--expect", "1", "--note", "better")
    eventually(lambda: versions() == ["2"] * 3)
    refused = own.run("model", "alias", "digits@prod", "1", "--expect", "1", "-o", "json")
    in_use = own.run("model", "rm", "digits@2", "-o", "json")
    exported = tmp_path / "fleet.hflog"
    own.json("log", "export", exported)
    for node in nodes:
        node.channel.close()

    assert (moved["version"], moved["previousVersion"]) == (2, 1)
    assert json.loads(refused.stderr)["error"]["reason"] == "ALIAS_MOVED"
    assert json.loads(in_use.stderr)["error"]["reason"] == "MODEL_IN_USE"
    now = own.json("model", "show", "digits@prod")
    assert (now["version"], now["provenance"]["licence"]) == (2, "MIT")
    for source in ([], [str(exported)]):
        shown = own.json("model", "show", "digits@prod", *source, "--at", then)
        assert (shown["model"]["version"], [a["alias"] for a in shown["aliases"]]) == (1, ["prod"])
    replayed = own.json("log", "replay", exported, "--at", then)
    assert [(a["alias"], a["version"]) for a in replayed["aliases"]] == [("prod", 1)]


def test_a_model_that_nobody_needs_goes_with_its_bytes(own: RunningFleet, tmp_path: Path) -> None:
    """And its number never comes again."""
    doubling_model(tmp_path / "other.onnx", "other")
    added = own.json("model", "add", "other", tmp_path / "other.onnx")
    own.json("model", "rm", "other@1")
    with connect(own.address) as client:
        eventually(lambda: not stored(client, added["artifact"]["root"]))
    again = own.json("model", "add", "other", tmp_path / "other.onnx")

    assert again["version"] == 2
    assert own.run("model", "show", "other@1").returncode != 0

"""The log proves itself to an auditor and to every node; a log that is another is refused by all."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from tests.integration.fleets import RunningFleet, hivefold, running_fleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
PROBE = ("job", "submit", "probe", "--tasks", "20")


def test_nodes_refuse_a_fleet_whose_log_was_restored_from_an_older_copy(tmp_path: Path) -> None:
    """They say why, do no work, and go on once the operator tells them that it was on purpose."""
    directory, copy = tmp_path / "fleet", tmp_path / "copy"
    with running_fleet(directory, node_count=1) as fleet:
        assert fleet.run(*PROBE, "--wait").returncode == 0
        assert fleet.stop() == 0
    shutil.copytree(directory / "nats" / "store", copy)
    with running_fleet(directory, node_count=1) as fleet:
        assert fleet.run(*PROBE, "--wait").returncode == 0
        assert fleet.stop() == 0
    shutil.rmtree(directory / "nats" / "store")
    copy.rename(directory / "nats" / "store")
    with running_fleet(directory, node_count=1) as fleet:
        (node,) = _until_refused(fleet)
        assert any(word in node["refusal"] for word in ("cut", "do not lead there", "rewritten"))
        assert "refuses" in fleet.run("node", "ls").stdout
        job = fleet.run(*PROBE).stdout.strip()
        time.sleep(2)
        assert fleet.json("job", "show", job)["state"] == "JOB_STATE_RUNNING"
        told = fleet.run("node", "trust", directory / "state" / "node-1", "--reset")
        assert told.returncode == 0, told.stderr
        assert fleet.run("job", "wait", job).returncode == 0


def test_a_log_is_verified_live_and_from_a_file(tmp_path: Path) -> None:
    """By the key that signed it; another key, a rotated one, a flipped byte are told apart, with the position."""
    file = tmp_path / "fleet.hflog"
    with running_fleet(tmp_path / "fleet", node_count=1) as fleet:
        assert fleet.run(*PROBE, "--wait").returncode == 0
        rotated = fleet.json("log", "rotate-key", "--request-id", "r1")
        assert fleet.json("log", "rotate-key", "--request-id", "r1") == rotated
        assert fleet.run(*PROBE, "--wait").returncode == 0
        time.sleep(1.5)
        live = fleet.json("log", "verify", "--key", rotated["keyId"])
        assert live["verified"]
        assert live["keyId"] == rotated["keyId"]
        assert fleet.run("log", "export", file).returncode == 0
        for after in (1, 4, int(live["sequence"]) - 2):
            assert fleet.run("log", "export", tmp_path / f"{after}.hflog", "--after", str(after)).returncode == 0
        witness = fleet.directory / "state" / "node-1" / "witness"
        seen = tmp_path / "witness"
        shutil.copy(witness, seen)
    assert _verified(file, "--key", rotated["previousKeyId"], "--witness", seen) == (0, True)
    assert _verified(file, "--key", "0" * 32) == (1, False)
    parts = [path for path in tmp_path.glob("*.hflog") if path != file]
    assert len(parts) == 3
    assert [_verified(path, "--key", rotated["keyId"]) for path in parts] == [(0, True)] * 3
    data = bytearray(file.read_bytes())
    data[data.index(b"log.job.")] ^= 1
    file.write_bytes(data)
    assert _verified(file) == (1, False)


def _verified(file: Path, *arguments: str | Path) -> tuple[int, bool]:
    done = hivefold("log", "verify", file, *arguments, "-o", "json")
    return done.returncode, json.loads(done.stdout)["verified"]


def _until_refused(fleet: RunningFleet) -> list[dict[str, str]]:
    deadline = time.monotonic() + 30
    while True:
        nodes: list[dict[str, str]] = fleet.json("node", "ls")["nodes"]
        if all(node.get("refusal") for node in nodes):
            return nodes
        assert time.monotonic() < deadline, nodes
        time.sleep(0.2)

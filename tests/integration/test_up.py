"""`hivefold up`: ready, supervised, stopped in order, started again with everything."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.integration.fleets import RunningFleet, hivefold, running_fleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


def until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_endpoints_name_every_process(fleet: RunningFleet) -> None:
    """When `up` is ready, DIR/endpoints.json says where everything is, and all of it listens."""
    endpoints = fleet.endpoints

    assert [node["id"] for node in endpoints["nodes"]] == ["node-1", "node-2", "node-3"]
    assert set(endpoints["pids"]) == {"nats", "coordinator", "node-1", "node-2", "node-3"}
    assert all(alive(pid) for pid in endpoints["pids"].values())
    assert {node["pid"] for node in endpoints["nodes"]} < set(endpoints["pids"].values())
    nats = endpoints["nats"].removeprefix("nats://")
    for address in [nats, endpoints["coordinator"], *(node["grpc"] for node in endpoints["nodes"])]:
        host, _, port = address.rpartition(":")
        assert host == "127.0.0.1"
        socket.create_connection((host, int(port)), timeout=5).close()


def test_what_holds_passwords_is_for_the_owner_only(fleet: RunningFleet) -> None:
    """Configuration files are 0600, their directories 0700, and no command line shows a secret."""
    files = [*(fleet.directory / "config").iterdir(), fleet.directory / "nats" / "server.conf"]

    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert (fleet.directory / "config").stat().st_mode & 0o777 == 0o700
    secrets = [file.read_text().strip() for file in (fleet.directory / "nats" / "passwords").iterdir()]
    shown = [" ".join(psutil.Process(pid).cmdline()) for pid in (fleet.process.pid, *fleet.endpoints["pids"].values())]
    assert len(secrets) >= 7
    assert not [line for line in shown for secret in secrets if secret in line]


def test_a_second_up_on_the_same_directory_is_refused(fleet: RunningFleet) -> None:
    """It says which process runs there, and leaves that one alone."""
    second = hivefold("up", "--dir", fleet.directory)

    assert second.returncode == 2
    assert f"process {fleet.process.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    assert fleet.process.poll() is None


def test_a_given_port_that_is_taken_is_refused(fleet: RunningFleet, tmp_path: Path) -> None:
    """The port, and what to do, are named."""
    port = fleet.address.rpartition(":")[2]
    refused = hivefold("up", "--dir", tmp_path / "other", "--port", port)

    assert refused.returncode == 2
    assert f"port {port} for coordinator is taken" in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_and_a_new_start_finds_every_job(tmp_path: Path, number: signal.Signals) -> None:
    """Exit code 0, no process left; the next start on the directory has the same ports and the same state."""
    directory = tmp_path / "hf"
    with running_fleet(directory, node_count=1) as first:
        job = first.json("job", "submit", "probe", "--tasks", "20", "--wait")
        endpoints = first.endpoints
        assert first.stop(number) == 0, first.said()

    assert not any(alive(pid) for pid in endpoints["pids"].values())
    assert not (directory / "endpoints.json").exists()

    with running_fleet(directory, node_count=1) as second:
        again = second.json("job", "show", job["jobId"])
        assert again == job
        assert second.endpoints["coordinator"] == endpoints["coordinator"]
        assert second.endpoints["nodes"][0]["grpc"] == endpoints["nodes"][0]["grpc"]


def test_a_stop_in_mid_job_loses_nothing(tmp_path: Path) -> None:
    """Nodes finish what runs and leave in order; after the next start the job goes on to its end."""
    directory = tmp_path / "hf"
    with running_fleet(directory, node_count=2) as first:
        job_id = first.run("job", "submit", "probe", "--tasks", "40", "--task-duration", "0.3").stdout.strip()
        until(lambda: int(first.json("job", "show", job_id)["progress"]["tasksSucceeded"]) > 2, "the first tasks")
        assert first.stop() == 0, first.said()

    with running_fleet(directory, node_count=2) as second:
        done = second.json("job", "wait", job_id)
        assert done["state"] == "JOB_STATE_SUCCEEDED"
        assert (done["progress"]["tasksSucceeded"], done["progress"]["attemptsFailed"]) == ("40", "0")
        assert second.json("log", "replay")["equal"] is True


@pytest.mark.parametrize("name", ["node-1", "coordinator", "nats"])
def test_what_is_killed_is_announced_and_started_again(tmp_path: Path, name: str) -> None:
    """The fleet works on; the new process is in endpoints.json, at the same address."""
    with running_fleet(tmp_path / "hf", node_count=1) as fleet:
        before = fleet.endpoints
        os.kill(before["pids"][name], signal.SIGKILL)
        until(lambda: fleet.endpoints["pids"].get(name) not in {None, before["pids"][name]}, f"a new {name}")

        after = fleet.endpoints
        assert (after["nats"], after["coordinator"]) == (before["nats"], before["coordinator"])
        assert f"{name} ended (SIGKILL)" in fleet.said()
        until(lambda: fleet.run("job", "submit", "probe", "--tasks", "5", "--wait").returncode == 0, "a job", 60)


def test_without_restart_the_dead_stay_dead(tmp_path: Path) -> None:
    """--no-restart leaves it to the operator."""
    with running_fleet(tmp_path / "hf", "--no-restart", node_count=2) as fleet:
        os.kill(fleet.endpoints["pids"]["node-2"], signal.SIGKILL)
        until(lambda: "node-2" not in fleet.endpoints["pids"], "node-2 to go")

        assert "node-2 ended (SIGKILL) and stays down" in fleet.said()
        assert [node["pid"] > 0 for node in fleet.endpoints["nodes"]] == [True, False]


def test_daemons_of_a_killed_up_are_taken_over(tmp_path: Path) -> None:
    """After SIGKILL of `up` itself the next start ends what was left behind and works."""
    directory = tmp_path / "hf"
    with running_fleet(directory, node_count=1) as first:
        left = first.endpoints["pids"].values()
        first.process.kill()
        first.process.wait()
        assert all(alive(pid) for pid in left)

        with running_fleet(directory, node_count=1) as second:
            until(lambda: not any(alive(pid) for pid in left), "the old processes to go")
            assert second.run("job", "submit", "probe", "--tasks", "5", "--wait").returncode == 0

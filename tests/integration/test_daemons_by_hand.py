"""`hivefold coordinator run` and `hivefold node run` against a NATS server that somebody else runs."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.integration.daemons import FSYNC_ALWAYS, FSYNC_INTERVAL, daemon, free_port, nats, until_open
from tests.integration.fleets import hivefold

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def test_two_daemons_and_any_nats_make_a_fleet(tmp_path: Path) -> None:
    """Flags for one, NATS_URL for the other; a job runs; SIGTERM ends both with exit code 0."""
    port = free_port()
    with nats(tmp_path / "nats", FSYNC_ALWAYS) as (url, monitor):
        flags = (
            "--nats-servers",
            url,
            "--monitor-url",
            monitor,
            "--port",
            str(port),
            "--data-dir",
            str(tmp_path / "c"),
        )
        with daemon(tmp_path / "c.log", "coordinator", "run", *flags) as coordinator:
            until_open(port, coordinator, tmp_path / "c.log")
            more = (
                "--id",
                "by-hand",
                "--label",
                "zone=a",
                "--data-dir",
                str(tmp_path / "n"),
                "--port",
                str(free_port()),
            )
            with daemon(tmp_path / "n.log", "node", "run", *more, NATS_URL=url) as node:
                submit = ("job", "submit", "probe", "--tasks", "5", "--needs-label", "zone=a", "--wait", "-o", "json")
                done = hivefold(*submit, HIVEFOLD_ADDRESS=f"127.0.0.1:{port}")
                for _ in range(50):
                    if done.returncode == 0:
                        break
                    time.sleep(0.2)  # the node has not joined yet: its label cannot be met
                    done = hivefold(*submit, HIVEFOLD_ADDRESS=f"127.0.0.1:{port}")
                assert done.returncode == 0, done.stderr + (tmp_path / "n.log").read_text()
                assert json.loads(done.stdout)["progress"]["tasksSucceeded"] == "5"
            assert node.returncode == 0, (tmp_path / "n.log").read_text()
        assert coordinator.returncode == 0, (tmp_path / "c.log").read_text()


@pytest.mark.parametrize(
    ("sync_interval", "what"),
    [(None, "JetStream"), (FSYNC_INTERVAL, "sync_interval")],
    ids=["without JetStream", "weaker durability"],
)
def test_a_server_that_promises_too_little_is_refused(tmp_path: Path, sync_interval: str | None, what: str) -> None:
    """The refusal names what to change, without a traceback."""
    with nats(tmp_path / "nats", sync_interval) as (url, monitor):
        flags = ("--nats-servers", url, "--monitor-url", monitor, "--port", str(free_port()))
        refused = hivefold("coordinator", "run", *flags, "--data-dir", tmp_path / "c")

    assert refused.returncode == 2
    assert what in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_wrong_configuration_is_a_usage_error(tmp_path: Path) -> None:
    """An unknown key in the file, a flag and a variable out of range: each is named with its place."""
    (tmp_path / "c.toml").write_text("portt = 1\n")
    unknown = hivefold("coordinator", "run", "--config", tmp_path / "c.toml")
    assert (unknown.returncode, "portt" in unknown.stderr) == (2, True)

    variable = hivefold("node", "run", HIVEFOLD_NODE_SLOTS="many")
    assert (variable.returncode, "HIVEFOLD_NODE_SLOTS" in variable.stderr) == (2, True)


def test_a_node_keeps_trying_to_reach_its_server(tmp_path: Path) -> None:
    """A server that is not there yet is no reason to end at once; Ctrl-C still does."""
    with daemon(
        tmp_path / "n.log", "node", "run", "--data-dir", str(tmp_path / "n"), NATS_URL="nats://127.0.0.1:9"
    ) as node:
        time.sleep(3)
        assert node.poll() is None, (tmp_path / "n.log").read_text()
        os.kill(node.pid, signal.SIGINT)
        node.wait(15)

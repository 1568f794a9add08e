"""The command line against a real fleet: what it prints, where, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fixtures.onnx_models import doubling_model
from tests.integration.fleets import RunningFleet, environment, hivefold

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture(scope="session")
def model(fleet: RunningFleet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A registered model of the shared fleet: y is twice x, rows of four FP32."""
    path = tmp_path_factory.mktemp("models") / "double.onnx"
    doubling_model(path)
    registered: dict[str, Any] = fleet.json("model", "add", "double", path, "--label", "team=tests")
    return registered


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.npy"
    np.save(path, np.arange(4000, dtype=np.float32).reshape(1000, 4))
    return path


def loaded(path: Path) -> Any:
    """The rows of an output file."""
    if path.suffix == ".csv":
        return np.loadtxt(path, delimiter=",", skiprows=1)
    found = np.load(path)
    return found["y"] if path.suffix == ".npz" else found


def error_of(done: subprocess.CompletedProcess[str]) -> Any:
    """The error that a command with -o json wrote, which must be all that it wrote."""
    assert done.stdout == ""
    return json.loads(done.stderr)["error"]


def test_nodes_are_listed_and_shown(fleet: RunningFleet) -> None:
    """One line for each node; details by id."""
    lines = fleet.run("node", "ls").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["node", "node-1", "node-2", "node-3"]

    shown = fleet.json("node", "show", "node-2")
    assert shown["spec"]["pid"] == fleet.endpoints["pids"]["node-2"]
    assert "node-2" in fleet.run("node", "show", "node-2").stdout


def test_a_drained_node_says_so_until_it_is_undrained(fleet: RunningFleet) -> None:
    """Both answer with the node as it is afterwards; repeating them is harmless."""
    try:
        assert fleet.json("node", "drain", "node-3", "--note", "new disk")["draining"] is True
        assert fleet.json("node", "drain", "node-3")["draining"] is True
    finally:
        assert fleet.json("node", "undrain", "node-3")["draining"] is False


def test_models_are_registered_once(fleet: RunningFleet, model: dict[str, Any], tmp_path: Path) -> None:
    """The same content under the same name is the same version; lists and details agree."""
    doubling_model(tmp_path / "again.onnx")
    again = fleet.json("model", "add", "double", tmp_path / "again.onnx")

    assert (again["version"], again["digest"]) == (model["version"], model["digest"])
    assert fleet.json("model", "show", "double")["labels"] == {"team": "tests"}
    shown = fleet.json("model", "show", "double@1")
    assert (shown.pop("aliases"), shown.pop("residency")) == ([], None)
    assert fleet.json("model", "ls", "double")["models"] == [shown]
    assert "x FP32[?, 4]" in fleet.run("model", "ls").stdout


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".csv"])
def test_a_job_runs_from_file_to_file(fleet: RunningFleet, model: dict[str, Any], rows: Path, suffix: str) -> None:
    """--output waits and writes the rows in the order of the input, in the format of the file's name."""
    out = rows.with_name(f"out{suffix}")
    done = fleet.run("job", "submit", "infer", "--model", "double", "--input", rows, "--output", out)
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout

    np.testing.assert_array_equal(loaded(out), np.load(rows) * 2)


def test_a_file_by_reference_gives_the_same_output(
    fleet: RunningFleet, model: dict[str, Any], rows: Path, tmp_path: Path
) -> None:
    """--by-reference uploads nothing; -o may ask for a file and for JSON in one command."""
    out = tmp_path / "out.npy"
    options = ("--by-reference", "-o", out, "-o", "json", "--outputs", "y", "--label", "kind=ref")
    done = fleet.run("job", "submit", "infer", "--model", "double@1", "-i", rows, *options)
    job = json.loads(done.stdout)

    assert job["state"] == "JOB_STATE_SUCCEEDED"
    assert job["spec"]["infer"]["dataSet"]["file"]["path"] == str(rows)
    np.testing.assert_array_equal(np.load(out), np.load(rows) * 2)
    assert [j["jobId"] for j in fleet.json("job", "ls", "--label", "kind=ref")["jobs"]] == [job["jobId"]]


def test_a_job_is_followed_and_its_output_fetched_later(
    fleet: RunningFleet, model: dict[str, Any], rows: Path, tmp_path: Path
) -> None:
    """Submit prints the id and nothing else; watch, wait, tasks and output take it from there."""
    submitted = fleet.run("job", "submit", "infer", "--model", "double", "--input", rows)
    job_id = submitted.stdout.strip()

    events = [json.loads(line) for line in fleet.run("job", "watch", job_id, "-o", "jsonl").stdout.splitlines()]
    assert (events[0]["type"], events[-1]["type"]) == ("JOB_EVENT_TYPE_SUBMITTED", "JOB_EVENT_TYPE_SUCCEEDED")
    assert fleet.run("job", "wait", job_id).returncode == 0
    tasks = fleet.json("job", "tasks", job_id)["tasks"]
    assert sum(int(task["rowCount"]) for task in tasks) == 1000
    assert {task["state"] for task in tasks} == {"TASK_STATE_SUCCEEDED"}

    fetched = fleet.run("job", "output", job_id, "-o", tmp_path / "later.npz")
    assert fetched.stdout.strip() == str(tmp_path / "later.npz")
    with np.load(tmp_path / "later.npz") as output:
        assert output["y"].shape == (1000, 4)


def test_a_repeated_request_gives_the_same_job(fleet: RunningFleet) -> None:
    """The same --request-id with the same content is one job; with other content it is refused."""
    options = ("job", "submit", "probe", "--request-id", "cli-once", "--tasks")
    first, second = (fleet.run(*options, "3").stdout for _ in range(2))
    assert first == second

    other = fleet.run(*options, "4", "-o", "json")
    assert (other.returncode, error_of(other)["reason"]) == (1, "REQUEST_ID_REUSED")


def test_a_cancelled_job_ends_the_wait_with_its_own_code(fleet: RunningFleet) -> None:
    """Exit code 5: the job was waited for and did not succeed."""
    job_id = fleet.run("job", "submit", "probe", "--tasks", "300", "--task-duration", "10").stdout.strip()
    waiting = subprocess.Popen(
        [sys.executable, "-c", "from cli.main import main; main()", "job", "wait", job_id],
        env=environment(HIVEFOLD_DIR=str(fleet.directory)),
        stdout=subprocess.PIPE,
        text=True,
    )
    cancelled = fleet.json("job", "cancel", job_id, "--note", "not needed")

    assert cancelled["state"] == "JOB_STATE_CANCELLED"
    out, _ = waiting.communicate(timeout=30)
    assert waiting.returncode == 5
    assert "cancelled" in out
    assert fleet.run("job", "watch", job_id).returncode == 5


def test_a_timeout_fails_the_job(fleet: RunningFleet) -> None:
    """--timeout bounds a job; the failure names the reason."""
    done = fleet.run("job", "submit", "probe", "--task-duration", "30", "--timeout", "0.3", "--wait", "-o", "json")

    assert done.returncode == 5
    assert json.loads(done.stdout)["failure"]["reason"] == "REASON_DEADLINE_EXCEEDED"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("job show j-none", "JOB_NOT_FOUND"),
        ("job tasks j-none", "JOB_NOT_FOUND"),
        ("job watch j-none", "JOB_NOT_FOUND"),
        ("job wait j-none", "JOB_NOT_FOUND"),
        ("job cancel j-none", "JOB_NOT_FOUND"),
        ("node show nobody", "NODE_NOT_FOUND"),
        ("node drain nobody", "NODE_NOT_FOUND"),
        ("model show nothing", "MODEL_NOT_FOUND"),
        ("job submit infer --model nothing --input /dev/null", "MODEL_NOT_FOUND"),
    ],
)
def test_what_does_not_exist_is_not_found(fleet: RunningFleet, line: str, reason: str) -> None:
    """Exit code 3, the reason, and where to look."""
    done = fleet.run(*line.split(), "-o", "json")

    assert (done.returncode, error_of(done)["reason"]) == (3, reason)
    plain = fleet.run(*line.split())
    assert plain.stderr.startswith("error: ")
    assert plain.stderr.count("with: hivefold ") == 1
    assert "Traceback" not in plain.stderr


def test_an_id_that_cannot_exist_is_a_usage_error(fleet: RunningFleet) -> None:
    """The rule for ids is named."""
    done = fleet.run("job", "show", "NO GOOD", "-o", "json")

    assert (done.returncode, error_of(done)["reason"]) == (2, "INVALID_ARGUMENT")


def test_rows_that_do_not_fit_are_refused_with_the_fix(
    fleet: RunningFleet, model: dict[str, Any], tmp_path: Path
) -> None:
    """A wrong shape and a file that is none fail before anything runs."""
    np.save(tmp_path / "wide.npy", np.zeros((3, 5), np.float32))
    wide = fleet.run("job", "submit", "infer", "--model", "double", "--input", tmp_path / "wide.npy", "-o", "json")
    assert error_of(wide)["reason"] == "SHAPE_MISMATCH"

    (tmp_path / "empty.npy").touch()
    empty = fleet.run("job", "submit", "infer", "--model", "double", "--input", tmp_path / "empty.npy", "-o", "json")
    assert error_of(empty)["reason"] == "DATA_INVALID"
    missing = fleet.run("job", "submit", "infer", "--model", "double", "--input", tmp_path / "none.npy", "-o", "json")
    assert error_of(missing)["reason"] == "FILE_UNREADABLE"


def test_a_file_that_is_no_model_is_refused(fleet: RunningFleet, tmp_path: Path) -> None:
    """Registration checks the file; exit code 1."""
    (tmp_path / "text.onnx").write_text("no model")
    done = fleet.run("model", "add", "text", tmp_path / "text.onnx", "-o", "json")

    assert (done.returncode, error_of(done)["reason"]) == (1, "MODEL_INVALID")


def test_replay_gives_the_live_state(fleet: RunningFleet) -> None:
    """The fold of the log from record 1 has the live coordinator's digest."""
    assert fleet.run("job", "submit", "probe", "--tasks", "50", "--wait").returncode == 0
    found = fleet.json("log", "replay")

    assert found["equal"] is True
    assert found["stateDigest"] == found["liveStateDigest"]
    assert int(found["sequence"]) > 5
    assert "equal" in fleet.run("log", "replay").stdout


def test_the_tail_of_the_log_is_shown(fleet: RunningFleet) -> None:
    """Records in order, as text and as JSON lines; `--after` reads from a position on."""
    lines = fleet.run("log", "tail", "-n", "5").stdout.splitlines()
    records = [json.loads(line) for line in fleet.run("log", "tail", "--after", "0", "-o", "jsonl").stdout.splitlines()]

    assert len(lines) == 5
    assert [int(record["sequence"]) for record in records] == list(range(1, len(records) + 1))
    assert "termStarted" in records[0]["events"][0]


def test_top_looks_once(fleet: RunningFleet) -> None:
    """Without a terminal `top` prints plain text; as JSON it gives nodes, jobs and the head."""
    assert "3 of 3 nodes online" in fleet.run("top", "--once").stdout
    assert len(fleet.json("top", "--once")["nodes"]) == 3


def test_doctor_finds_everything_in_order(fleet: RunningFleet) -> None:
    """Each check has a verdict; nothing is bad where these tests run."""
    found = fleet.json("doctor")["findings"]

    assert {"python", "packages", "nats-server", "jetstream", "fleet", "disk", "gpu"} <= {f["check"] for f in found}
    assert [finding for finding in found if finding["verdict"] == "bad"] == []


def test_no_fleet_is_unavailable(tmp_path: Path) -> None:
    """Exit code 4 says how to start one, for a directory without a fleet and for an address that is silent."""
    nowhere = hivefold("node", "ls", "--dir", tmp_path)
    silent = hivefold("node", "ls", "--address", "127.0.0.1:9", "-o", "json")

    assert nowhere.returncode == 4
    assert "start one with: hivefold up" in nowhere.stderr
    assert (silent.returncode, error_of(silent)["reason"]) == (4, "SERVER_UNAVAILABLE")


def test_ctrl_c_ends_a_command_quietly(fleet: RunningFleet) -> None:
    """Exit code 130, no traceback."""
    # A shell that starts the tests in the background has interrupts ignored, and programs inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    following = subprocess.Popen(
        [sys.executable, "-c", "from cli.main import main; main()", "log", "tail", "--after", "0", "--follow"],
        env=environment(HIVEFOLD_DIR=str(fleet.directory)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    following.stdout.readline()
    os.kill(following.pid, signal.SIGINT)
    _, err = following.communicate(timeout=30)

    assert (following.returncode, err) == (130, "")


def test_a_reader_that_has_seen_enough_is_no_error(fleet: RunningFleet) -> None:
    """`hivefold log tail | head -1` ends without a word."""
    command = f"{sys.executable} -c 'from cli.main import main; main()' log tail --after 0 -o jsonl | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=environment(HIVEFOLD_DIR=str(fleet.directory)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")

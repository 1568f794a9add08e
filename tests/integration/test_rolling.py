"""A fleet is upgraded and taken back daemon by daemon, with work in flight: none of it is lost or done twice."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fixtures.onnx_models import doubling_model
from tests.integration.daemons import FSYNC_ALWAYS, daemon, free_port, nats, until_open
from tests.integration.fleets import hivefold

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
WHEEL = Path(__file__).parents[1] / "golden" / "hivefold-0.1.0-py3-none-any.whl"
NODES = ("n1", "n2")
TASKS = 150
SUCCEEDED = "JOB_STATE_SUCCEEDED"


class Rolling:
    """A coordinator and two nodes, each of the old or of the new program, on one NATS server."""

    def __init__(self, directory: Path, url: str, monitor: str) -> None:
        self._directory = directory
        self._server = ("--nats-servers", url, "--monitor-url", monitor)
        self._ports = {name: free_port() for name in ("c", *NODES)}
        self._running: dict[str, ExitStack] = {}
        self.old = directory / "old"
        with zipfile.ZipFile(WHEEL) as wheel:
            wheel.extractall(self.old)

    @property
    def address(self) -> str:
        """The coordinator."""
        return f"127.0.0.1:{self._ports['c']}"

    def start(self, name: str, program: Path | None) -> None:
        """Ends the daemon in order, and starts it again as the program says; returns once it serves."""
        self.stop(name)
        kind = ("coordinator", "run") if name == "c" else ("node", "run", "--id", name, "--slots", "2")
        server = self._server if name == "c" else self._server[:2]
        places = ("--port", str(self._ports[name]), "--data-dir", str(self._directory / name))
        said = self._directory / f"{name}.log"
        stack = self._running[name] = ExitStack()
        process = stack.enter_context(daemon(said, *kind, *server, *places, program=program))
        until_open(self._ports[name], process, said)

    def stop(self, name: str) -> None:
        """Ends the daemon in order."""
        if name in self._running:
            self._running.pop(name).close()

    def submit(self, *arguments: str | Path) -> str:
        """Submits a job with today's command line, as soon as the fleet takes it; its id."""
        deadline = time.monotonic() + 30
        while True:
            done = hivefold("job", "submit", *arguments, HIVEFOLD_ADDRESS=self.address)
            if done.returncode == 0:
                return done.stdout.strip()
            assert time.monotonic() < deadline, done.stderr
            time.sleep(0.2)

    def ended(self, job_id: str) -> Any:
        """The job once it has ended."""
        done = hivefold("job", "wait", job_id, "-o", "json", HIVEFOLD_ADDRESS=self.address)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    def doubled(self, infer: str) -> Any:
        """The output of such a job, as today's command line fetches it."""
        path = self._directory / f"{infer}.npz"
        fetched = hivefold("job", "output", infer, path, HIVEFOLD_ADDRESS=self.address)
        assert fetched.returncode == 0, fetched.stderr
        with np.load(path) as output:
            return output["y"]


@contextmanager
def rolling(directory: Path) -> Iterator[Rolling]:
    with nats(directory / "nats", FSYNC_ALWAYS) as (url, monitor):
        fleet = Rolling(directory, url, monitor)
        try:
            yield fleet
        finally:
            for name in (*NODES, "c"):
                fleet.stop(name)


def test_old_new_old_with_work_in_flight_loses_none(tmp_path: Path) -> None:
    """Each daemon is replaced while jobs run, first to the new version, then back to the one before.

    What the new version sealed waits for it: 0.1.0, which seals nothing, reads the rest.
    """
    doubling_model(tmp_path / "double.onnx")
    rows = np.arange(40_000, dtype="<f4").reshape(-1, 4)
    np.save(tmp_path / "rows.npy", rows)
    doubled = ("infer", "--model", "double", "--input", tmp_path / "rows.npy")
    probe = ("probe", "--tasks", str(TASKS), "--task-duration", "0.05")
    with rolling(tmp_path) as fleet:
        for name in ("c", *NODES):
            fleet.start(name, fleet.old)
        added = hivefold("model", "add", "double", tmp_path / "double.onnx", HIVEFOLD_ADDRESS=fleet.address)
        assert added.returncode == 0, added.stderr
        jobs = [fleet.submit(*probe)]
        plain, sealed = [fleet.submit(*doubled)], list[str]()
        for program in (None, fleet.old):
            for name in ("c", *NODES):
                fleet.start(name, program)
                jobs.append(fleet.submit(*probe))
                (sealed if program is None else plain).append(fleet.submit(*doubled))
        for job in map(fleet.ended, jobs):
            assert (job["state"], job["progress"]["tasksSucceeded"]) == (SUCCEEDED, str(TASKS))
        for infer in (*plain, *sealed):
            assert fleet.ended(infer)["state"] == SUCCEEDED
        for infer in plain:
            assert np.array_equal(fleet.doubled(infer), rows * 2)
        fleet.start("c", None)
        for infer in sealed:
            assert np.array_equal(fleet.doubled(infer), rows * 2)

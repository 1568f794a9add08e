"""Every input format through a real fleet into every output format: in input order, number for number."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hivefold.client import InferOptions, SyncFleet, connect
from hivefold.errors import ConflictError, DataRefusedError
from hivefold.v1.job_pb2 import JOB_STATE_SUCCEEDED
from tests.integration.fleets import RunningFleet, environment
from tests.tidy.source import ROOT

pytestmark = pytest.mark.integration

ROWS = np.random.default_rng(3).random((5_000, 4), np.float32)
Save = Callable[[Path], None]


def save_csv(path: Path) -> None:
    np.savetxt(path, ROWS, "%.9g", delimiter=",", header="a,b,c,d", comments="")


FORMATS: dict[str, tuple[str, Save, InferOptions]] = {
    "npy": ("a.npy", lambda path: np.save(path, ROWS), InferOptions()),
    "npy by reference": ("a.npy", lambda path: np.save(path, ROWS), InferOptions(by_reference=True)),
    "npy of big-endian numbers": ("a.npy", lambda path: np.save(path, ROWS.astype(">f4")), InferOptions()),
    "npy of doubles": ("a.npy", lambda path: np.save(path, ROWS.astype(np.float64)), InferOptions(cast=True)),
    "npz": ("a.npz", lambda path: np.savez(path, a=ROWS * 0, b=ROWS), InferOptions(member="b")),
    "npz by reference": ("a.npz", lambda path: np.savez(path, a=ROWS), InferOptions(by_reference=True)),
    "npz, compressed": ("a.npz", lambda path: np.savez_compressed(path, a=ROWS), InferOptions()),
    "csv": ("a.csv", save_csv, InferOptions()),
}


def outcome(client: SyncFleet, model: str, path: Path, options: InferOptions) -> str:
    job = client.jobs.wait(client.jobs.submit_infer(model, path, infer=options).job_id)
    assert job.state == JOB_STATE_SUCCEEDED, job.failure
    return job.job_id


def read(path: Path) -> NDArray[np.float32]:
    match path.suffix:
        case ".npz":
            with np.load(path) as members:
                return np.asarray(members["y"], np.float32)
        case ".npy":
            return np.asarray(np.load(path), np.float32)
        case _:
            assert path.read_text().startswith("y_0,y_1,y_2,y_3\n")
            return np.loadtxt(path, np.float32, delimiter=",", skiprows=1)


@pytest.mark.parametrize("name", FORMATS)
def test_rows_come_back_doubled_in_order(fleet: RunningFleet, registered: str, tmp_path: Path, name: str) -> None:
    """Cut into tasks, done anywhere, put together again."""
    filename, save, options = FORMATS[name]
    save(tmp_path / filename)
    with connect(directory=fleet.directory) as client:
        job_id = outcome(client, registered, tmp_path / filename, options)
        for suffix in (".npz", ".npy", ".csv"):
            client.jobs.download_output(job_id, tmp_path / f"out{suffix}")
            assert np.array_equal(read(tmp_path / f"out{suffix}"), ROWS * 2)


def test_outputs_feed_the_next_job(fleet: RunningFleet, registered: str, tmp_path: Path) -> None:
    """An output file is a data set, by reference too."""
    np.save(tmp_path / "a.npy", ROWS)
    with connect(directory=fleet.directory) as client:
        first = outcome(client, registered, tmp_path / "a.npy", InferOptions())
        client.jobs.download_output(first, tmp_path / "once.npz")
        second = outcome(client, registered, tmp_path / "once.npz", InferOptions(by_reference=True))
        client.jobs.download_output(second, tmp_path / "twice.npz")
    assert np.array_equal(read(tmp_path / "twice.npz"), ROWS * 4)


def test_doubles_are_not_rounded_unasked(fleet: RunningFleet, registered: str, tmp_path: Path) -> None:
    """Nothing is sent before the refusal."""
    np.save(tmp_path / "a.npy", ROWS.astype(np.float64))
    with connect(directory=fleet.directory) as client, pytest.raises(DataRefusedError, match="--cast"):
        client.jobs.submit_infer(registered, tmp_path / "a.npy")


def test_a_probe_has_no_output(fleet: RunningFleet, tmp_path: Path) -> None:
    """And no file appears."""
    with connect(directory=fleet.directory) as client:
        job = client.jobs.wait(client.jobs.submit_probe(1).job_id)
        with pytest.raises(ConflictError, match="probe"):
            client.jobs.download_output(job.job_id, tmp_path / "out.npz")
    assert not list(tmp_path.iterdir())


def test_the_client_example_classifies_a_file(fleet: RunningFleet, registered: str, tmp_path: Path) -> None:
    """It finds the fleet by its directory and prints what came out."""
    np.save(tmp_path / "rows.npy", ROWS)
    command = [sys.executable, "-m", "examples.classify", registered, str(tmp_path / "rows.npy")]
    place = environment(HIVEFOLD_DIR=str(fleet.directory))
    ran = subprocess.run(command, cwd=ROOT, env=place, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("y: float32 (5000, 4)")

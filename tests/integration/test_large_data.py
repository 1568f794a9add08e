"""A data set that is larger than what any process of the fleet may take for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.onnx_models import doubling_model
from tests.integration.fleets import environment, running_fleet
from tests.tidy.source import ROOT

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="proc(5) tells how much memory a process had at most"),
]

ROWS = 40_000_000
"""Of four FP32: 640 MB in, and as much out."""
BLOCK = 1_000_000


def peak_bytes(pid: int) -> int:
    """The most memory that a process was ever resident with."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def make_rows(path: Path) -> int:
    """Rows that no two chunks of are alike; the file's size in bytes."""
    random = np.random.default_rng(5)
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(ROWS, 4))
    for first in range(0, ROWS, BLOCK):
        rows[first : first + BLOCK] = random.random((BLOCK, 4), np.float32)
    return path.stat().st_size


def test_no_process_ever_holds_the_whole_data_set(tmp_path: Path) -> None:
    """Uploaded, read by nodes, written, fetched: client, coordinator, nodes and NATS server keep parts of it alone."""
    size = make_rows(tmp_path / "rows.npy")
    doubling_model(tmp_path / "double.onnx")
    with running_fleet(tmp_path / "hf", node_count=2) as fleet:
        fleet.json("model", "add", "double", tmp_path / "double.onnx")
        job = ("job", "submit", "infer", "--model", "double")
        files = ("--input", tmp_path / "rows.npy", "--output", tmp_path / "out.npy")
        done = subprocess.run(
            [sys.executable, "-m", "bench.contenders.command", *job, *files],
            cwd=ROOT,
            env=environment(HIVEFOLD_DIR=str(fleet.directory)),
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        peaks = {name: peak_bytes(pid) for name, pid in fleet.endpoints["pids"].items()}
    peaks["client"] = int(done.stderr.splitlines()[-1])

    got, rows = (np.load(tmp_path / name, mmap_mode="r") for name in ("out.npy", "rows.npy"))
    assert got.shape == rows.shape
    assert all(np.array_equal(got[at : at + 1000], rows[at : at + 1000] * 2) for at in range(0, ROWS, BLOCK))
    assert {name: peak for name, peak in peaks.items() if peak >= size} == {}

"""`make demo` does what it claims, where there is no terminal."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.tidy.source import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def command_line(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def test_the_demo_survives_its_kills_and_leaves_nothing_running(tmp_path: Path) -> None:
    """Every task once, the true accuracy, the same state replayed; all processes end with it."""
    place = tmp_path / "demo"
    command = [sys.executable, "-m", "examples.demo", "--dir", str(place), "--rows", "200000"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=220, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for claim in ("killed at", "a coordinator leads again", "each done exactly once", "as live", "in all"):
        assert claim in ran.stdout, ran.stdout
    assert "200,000 rows" in ran.stdout
    labels = np.load(place / "data" / "labels.npy")
    with np.load(place / "data" / "output.npz") as output:
        right = float(np.mean(output["label"] == labels))
    assert right > 0.9
    assert f"{right:.2%} of the answers are right" in ran.stdout
    assert [line for process in psutil.process_iter() if str(place) in (line := command_line(process))] == []


def test_the_demo_empties_no_folder_but_its_own(tmp_path: Path) -> None:
    """A folder with other people's files is refused."""
    (tmp_path / "thesis.txt").write_text("years of work")
    command = [sys.executable, "-m", "examples.demo", "--dir", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    assert "another --dir" in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

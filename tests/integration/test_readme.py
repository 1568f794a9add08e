"""The README's commands work as they stand, one block after the other, against a real fleet."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from tests.integration.fleets import environment, running_fleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
NOT_HERE = {"make demo", "make test", "make up"}
"""Commands that are run elsewhere: the fixture stands in for `make up`."""


def blocks() -> list[str]:
    """The README's shell blocks without what is run elsewhere."""
    found = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = [[line for line in block.splitlines() if line.split("  #")[0].strip() not in NOT_HERE] for block in found]
    return ["\n".join(block) for block in lines if any(line.strip() for line in block)]


def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    """Each block runs without an error, and the job's output holds the right class for most rows."""
    programs = sysconfig.get_path("scripts")
    found = environment(PATH=f"{programs}{os.pathsep}{os.environ['PATH']}", PYTHONPATH=str(ROOT))
    with running_fleet(tmp_path / ".hivefold"):
        for block in blocks():
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block],
                cwd=tmp_path,
                env=found,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"

    labels = np.load(tmp_path / "data" / "labels.npy")
    with np.load(tmp_path / "data" / "classes.npz") as output:
        classes = output["label"]
    assert classes.shape == labels.shape
    assert np.mean(classes == labels) > 0.9

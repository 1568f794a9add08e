"""The README's commands work as they stand, one block after the other, against a real fleet."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from tests.integration.fleets import environment, running_fleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
NOT_HERE = {"make demo", "make test", "make up"}
"""Commands that are run elsewhere: the fixture stands in for `make up`."""


def fenced(language: str) -> list[str]:
    """The README's blocks of a language."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def shell_blocks() -> list[str]:
    """The shell blocks without what is run elsewhere."""
    found = fenced("sh")
    lines = [[line for line in block.splitlines() if line.split("  #")[0].strip() not in NOT_HERE] for block in found]
    return ["\n".join(block) for block in lines if any(line.strip() for line in block)]


def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    """Each block runs without an error, and the job's output holds the right class for most rows."""
    programs = sysconfig.get_path("scripts")
    found = environment(PATH=f"{programs}{os.pathsep}{os.environ['PATH']}", PYTHONPATH=str(ROOT))
    with running_fleet(tmp_path / ".hivefold"):
        blocks: list[tuple[str, ...]] = [("bash", "-euo", "pipefail", "-c", block) for block in shell_blocks()]
        blocks += [(sys.executable, "-c", block) for block in fenced("python")]
        for program in blocks:
            done = subprocess.run(
                program,
                cwd=tmp_path,
                env=found,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"{program[-1]}\n{done.stdout}\n{done.stderr}"

    labels = np.load(tmp_path / "data" / "labels.npy")
    with np.load(tmp_path / "data" / "classes.npz") as output, np.load(tmp_path / "data" / "again.npz") as again:
        classes = output["label"]
        assert np.array_equal(classes, again["label"])
    assert classes.shape == labels.shape
    assert np.mean(classes == labels) > 0.9

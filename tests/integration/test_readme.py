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
TRITON = ROOT / ".triton-venv" / "bin" / "python"
NOT_HERE = {"make demo", "make test", "make up"}
"""Commands that are run elsewhere: the fixture stands in for `make up`."""


def fenced(language: str, page: str = "README.md") -> list[str]:
    """A page's blocks of a language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def shell_blocks(page: str = "README.md") -> list[str]:
    """The shell blocks without what is run elsewhere."""
    found = fenced("sh", page)
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


def test_the_page_on_inference_works(tmp_path: Path) -> None:
    """Its commands, its Python, and where Triton's client is installed its lines as well: three digits each time."""
    programs = sysconfig.get_path("scripts")
    found = environment(PATH=f"{programs}{os.pathsep}{os.environ['PATH']}")
    first, last = shell_blocks("docs/serving.md")
    (python,) = fenced("python", "docs/serving.md")
    (triton,) = fenced("py", "docs/serving.md")
    blocks: list[tuple[str | Path, ...]] = [
        ("bash", "-euo", "pipefail", "-c", first),
        (sys.executable, "-c", python),
        ("bash", "-euo", "pipefail", "-c", last),
    ]
    if TRITON.exists():
        blocks.append((TRITON, "-c", triton))
    printed: list[str] = []
    with running_fleet(tmp_path / ".hivefold"):
        for program in blocks:
            own = {} if program[0] == TRITON else {"PYTHONPATH": str(ROOT)}
            done = subprocess.run(
                program, cwd=tmp_path, env={**found, **own}, capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, f"{program[-1]}\n{done.stdout}\n{done.stderr}"
            printed.append(done.stdout)

    labels = np.load(tmp_path / "data" / "labels.npy")[:3]
    assert printed[1].strip() == f"{labels} (3, 10)"
    assert [text.strip() for text in printed[3:]] == [str(labels)] * len(printed[3:])

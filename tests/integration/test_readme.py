"""The commands of the README and of the pages for users work as they stand, against a real fleet."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from hivefold.errors import FIXES, Reason
from tests.integration.fleets import RunningFleet, environment, running_fleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
TRITON = ROOT / ".triton-venv" / "bin" / "python"
SHELL = ("bash", "-euo", "pipefail", "-c")
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


def ran(program: Sequence[str | Path], place: Path, **more: str) -> str:
    """What a program prints, run with hivefold's commands on the PATH; it must succeed."""
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        program,
        cwd=place,
        env=environment(PATH=path, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{program[-1]}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    """Each block runs without an error, and the job's output holds the right class for most rows."""
    with running_fleet(tmp_path / ".hivefold"):
        for block in shell_blocks():
            ran([*SHELL, block], tmp_path, PYTHONPATH=str(ROOT))
        for block in fenced("python"):
            ran([sys.executable, "-c", block], tmp_path, PYTHONPATH=str(ROOT))

    labels = np.load(tmp_path / "data" / "labels.npy")
    with np.load(tmp_path / "data" / "classes.npz") as output, np.load(tmp_path / "data" / "again.npz") as again:
        classes = output["label"]
        assert np.array_equal(classes, again["label"])
    assert classes.shape == labels.shape
    assert np.mean(classes == labels) > 0.9


def test_the_page_on_inference_works(tmp_path: Path) -> None:
    """Its commands, its Python, and where Triton's client is installed its lines as well: three digits each time."""
    first, *later = shell_blocks("docs/serving.md")
    (python,) = fenced("python", "docs/serving.md")
    (triton,) = fenced("py", "docs/serving.md")
    with running_fleet(tmp_path / ".hivefold"):
        ran([*SHELL, first], tmp_path, PYTHONPATH=str(ROOT))
        said = ran([sys.executable, "-c", python], tmp_path, PYTHONPATH=str(ROOT))
        for block in later:
            ran([*SHELL, block], tmp_path, PYTHONPATH=str(ROOT))
        triton_said = ran([TRITON, "-c", triton], tmp_path) if TRITON.exists() else None

    labels = np.load(tmp_path / "data" / "labels.npy")[:3]
    assert said.strip() == f"{labels} (3, 10)"
    assert triton_said is None or triton_said.strip() == str(labels)


def test_the_page_on_the_client_works(fleet: RunningFleet, tmp_path: Path) -> None:
    """Its blocks, one after the other as one program, say what the page says that they do."""
    found = {"PYTHONPATH": str(ROOT), "HIVEFOLD_DIR": str(fleet.directory)}
    ran([*SHELL, *shell_blocks("docs/client.md")], tmp_path, **found)
    said = ran([sys.executable, "-c", "\n".join(fenced("python", "docs/client.md"))], tmp_path, **found).splitlines()

    labels = np.load(tmp_path / "data" / "labels.npy")
    assert np.mean(np.loadtxt(tmp_path / "data" / "classes.csv", delimiter=",", skiprows=1)[:, 0] == labels) > 0.9
    assert {line for line in said if not re.search("^sent|PENDING|RUNNING", line)} == {
        f"classes {labels[:3]}",
        "SUCCEEDED 100%",
        "labels (200,)",
        "again 200 of 200",
        "waited DEADLINE_EXCEEDED",
        "now CANCELLED",
        "nodes ['node-1', 'node-2', 'node-3']",
        f"model {fleet.json('model', 'show', 'digits')['digest'][:8]}",
        "log True",
        "refused True no-such-model",
        f"fix {FIXES[Reason.MODEL_NOT_FOUND]}",
        "failed NAN_FOUND",
        "watched SUCCEEDED",
        "equal True",
    }


def test_the_page_on_the_audit_of_inference_works(tmp_path: Path) -> None:
    """Its commands, and its program finds the row that was asked for among the digests."""
    first, last = shell_blocks("docs/inference-audit.md")
    (python,) = fenced("python", "docs/inference-audit.md")
    data = "python -m examples.digits data --rows 5"
    with running_fleet(tmp_path / ".hivefold"):
        _, shown, checked = (ran([*SHELL, block], tmp_path, PYTHONPATH=str(ROOT)) for block in (data, first, last))
        found = ran([sys.executable, "-c", python], tmp_path, PYTHONPATH=str(ROOT))

    assert "audited@1" in shown
    assert "verified" in checked
    assert found.startswith("asked at ")


def test_the_page_on_passports_works(tmp_path: Path) -> None:
    """Its commands need no fleet: what a person reads, what a program reads, and what 64 rows need."""
    (inspect,) = shell_blocks("docs/passport.md")
    ran([*SHELL, "python -m examples.digits data --rows 5"], tmp_path, PYTHONPATH=str(ROOT))
    said = ran([*SHELL, inspect], tmp_path)

    assert said.count("verdict") == 3
    assert '"verdict": "SAFETY_VERDICT_SAFE"' in said
    assert "for 64 rows" in said


def test_the_page_on_models_works(tmp_path: Path) -> None:
    """Its commands as they stand: what was named and kept is told from the log, also from its file; then it goes."""
    named, past, removal = shell_blocks("docs/models.md")
    (python,) = fenced("python", "docs/models.md")
    with running_fleet(tmp_path / ".hivefold") as fleet:
        ran([*SHELL, "python -m examples.digits data --rows 5; mv data/digits.onnx ."], tmp_path, PYTHONPATH=str(ROOT))
        shown = ran([*SHELL, named], tmp_path)
        loaded = ran([sys.executable, "-c", python], tmp_path, PYTHONPATH=str(ROOT))
        told = ran([*SHELL, past], tmp_path)
        ran([*SHELL, removal], tmp_path)
        left = fleet.json("model", "ls", "digits")

    assert "prod: version 1 since" in shown
    assert loaded == "loaded on 2\n"
    assert "digits@prod stands for version 1" in told
    assert "digits@1 to be kept on 2 nodes" in told
    assert left == {"models": []}

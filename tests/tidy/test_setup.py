"""Setting up on a machine that has too little says what is missing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.tidy.source import ROOT

OLD_PYTHON = """#!/bin/sh
[ "$1" = --version ] && echo Python 3.8.18 && exit
exit 1
"""


def test_an_old_python_is_named_with_what_to_do(tmp_path: Path) -> None:
    """Without Python 3.11 and without uv, setup ends with the version found and the way out, and makes nothing."""
    scripts, programs = tmp_path / "scripts", tmp_path / "bin"
    scripts.mkdir()
    programs.mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", scripts)
    (programs / "dirname").symlink_to(shutil.which("dirname") or "/usr/bin/dirname")
    python = programs / "python3"
    python.write_text(OLD_PYTHON, encoding="utf-8")
    python.chmod(0o755)

    found = subprocess.run(
        ["/bin/sh", scripts / "setup.sh"], env={"PATH": str(programs)}, capture_output=True, text=True, check=False
    )

    assert found.returncode != 0
    assert "needs Python 3.11 or newer; found: Python 3.8.18" in found.stderr
    assert "make PYTHON=" in found.stderr
    assert not (tmp_path / ".venv").exists()

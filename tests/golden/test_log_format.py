"""docs/log-format.md is enough to verify a log."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_documented_program_verifies_the_golden_log() -> None:
    """The program on the page runs as it stands."""
    page = (ROOT / "docs" / "log-format.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)

    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)

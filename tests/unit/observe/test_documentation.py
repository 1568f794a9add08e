"""docs/observing.md names what is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PRODUCT = ("hivefold", "actors", "node", "coordinator")


def test_every_documented_span_exists() -> None:
    """The names in the table are those in the code, and none of the code's is left out."""
    page = (ROOT / "docs" / "observing.md").read_text(encoding="utf-8")
    table = page.split("| span | where |")[1].split("\n\n")[0]
    documented = {name for name in re.findall(r"`([^`]+)`", table) if "/" not in name}
    source = "\n".join(path.read_text(encoding="utf-8") for folder in PRODUCT for path in (ROOT / folder).rglob("*.py"))
    written = set(re.findall(r"\bspan\(\s*\"([^\"]+)\"", source))

    assert documented == written

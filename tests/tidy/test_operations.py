"""docs/operations.md names every configuration key, and none that does not exist."""

from __future__ import annotations

import re

from hivefold.config import brokers, daemons
from tests.tidy.source import ROOT


def documented() -> set[str]:
    """The keys in the first column of the page's tables of keys."""
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = page.split("## Configuration")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)
    return {key for row in rows for key in re.findall(r"`([a-z_]+)`", row)}


def test_every_configuration_key_is_explained() -> None:
    """What a daemon reads and what the page says are the same."""
    read = {*daemons._COORDINATOR, *daemons._NODE, *brokers._KEYS}

    assert documented() == read

"""The log of a real fleet in a file, and what can be learned from it without the fleet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hivefold.log.file import LogFileReader
from tests.integration.fleets import RunningFleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def test_the_log_can_be_kept_in_a_file(fleet: RunningFleet, tmp_path: Path) -> None:
    """An exported file holds the log as it is, ends where the fleet's log ended, and is never overwritten by chance."""
    path = tmp_path / "fleet.hflog"
    found = fleet.json("log", "export", str(path))
    again = fleet.run("log", "export", str(path))
    lines = tmp_path / "fleet.jsonl"
    fleet.json("log", "export", str(lines), "--jsonl", "--after", "2", "--up-to", "5")

    with LogFileReader(path) as reader:
        assert sum(1 for _ in reader.records()) == int(found["recordCount"]) == int(found["lastSequence"])
        assert reader.end.last_hash.hex() == found["lastHash"]
        assert sum(1 for _ in reader.entries()) > int(found["recordCount"])
    assert (again.returncode, "--force" in again.stderr) == (1, True)
    assert fleet.json("log", "replay", str(path))["hash"] == found["lastHash"]
    kinds = [next(iter(json.loads(line))) for line in lines.read_text().splitlines()]
    assert kinds == ["header", "record", "record", "record", "end"]

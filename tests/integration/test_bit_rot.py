"""A disk that turns a bit of the log: the fleet stops and names the record; it never goes on with less history."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.fleets import RunningFleet, hivefold, running_fleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


def work(fleet: RunningFleet, jobs: int) -> int:
    """Runs some jobs; how many records there are then."""
    for _ in range(jobs):
        done = fleet.run("job", "submit", "probe", "--tasks", "3", "--wait")
        assert done.returncode == 0, done.stderr
    return int(fleet.json("log", "replay")["sequence"])


def flip(directory: Path, part: float) -> None:
    """Turns one bit in the file of the log, so far into it."""
    (block,) = directory.rglob("HF_LOG*/msgs/1.blk")
    content = bytearray(block.read_bytes())
    content[int(len(content) * part)] ^= 1
    block.write_bytes(content)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_a_flipped_bit_stops_the_fleet_at_its_record(tmp_path: Path, part: float) -> None:
    """At any place: the record is named, in its position; nothing is appended after a gap."""
    directory = tmp_path / "hf"
    with running_fleet(directory, node_count=1) as fleet:
        records = work(fleet, jobs=6)
    flip(directory, part)

    refused = hivefold("up", "--dir", directory, "--nodes", "1", "--port", "0", "--node-port", "0", "--nats-port", "0")

    assert refused.returncode != 0
    named = re.search(r"record (\d+)", refused.stderr)
    assert named is not None, refused.stderr
    assert abs(int(named[1]) - records * part) < records * 0.2 + 2, refused.stderr
    assert "Traceback" not in refused.stderr

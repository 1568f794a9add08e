"""A disk that turns a bit of the log: the fleet stops and names the record; it never goes on with less history."""

from __future__ import annotations

import json
import re
import shutil
import struct
from pathlib import Path

import pytest

from tests.integration.fleets import RunningFleet, hivefold, running_fleet
from tests.integration.test_erase import snapshot_often, until_snapshot

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


def work(fleet: RunningFleet, jobs: int) -> int:
    """Runs some jobs; how many records there are then."""
    for _ in range(jobs):
        done = fleet.run("job", "submit", "probe", "--tasks", "3", "--wait")
        assert done.returncode == 0, done.stderr
    return int(fleet.json("log", "replay")["sequence"])


def flip(directory: Path, part: float) -> int:
    """Turns one bit in the file of the log, so far into it; the record that the broker keeps there."""
    (block,) = directory.rglob("CORE/streams/HF_LOG/msgs/1.blk")
    content = bytearray(block.read_bytes())
    at, begin, record = int(len(content) * part), 0, 0
    while begin <= at:
        # Each begins with its length, the highest bit of which says that there are headers, and its position.
        length, record = struct.unpack_from("<IQ", content, begin)
        begin += length & 0x7FFFFFFF
    content[at] ^= 1
    block.write_bytes(content)
    return int(record)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.95, 0.9999])
def test_a_flipped_bit_stops_the_fleet_at_its_record(tmp_path: Path, part: float) -> None:
    """At any place, the last record too: it is named, by its position; nothing is appended after a gap."""
    directory = tmp_path / "hf"
    with running_fleet(directory, node_count=1) as fleet:
        work(fleet, jobs=6)
    flipped = flip(directory, part)

    refused = hivefold("up", "--dir", directory, "--nodes", "1", "--port", "0", "--node-port", "0", "--nats-port", "0")

    assert refused.returncode != 0
    named = re.search(r"record (\d+)", refused.stderr)
    assert named is not None, refused.stderr
    assert int(named[1]) == flipped, refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_bit_that_flips_before_the_last_snapshot_stops_every_reader_at_its_record(tmp_path: Path) -> None:
    """A start does not read there: the fleet goes on with its whole state; who reads the log is told, and the mirror
    puts the record back."""
    directory = tmp_path / "hf"
    with running_fleet(directory, node_count=1) as fleet:
        snapshot_often(fleet)
        records = work(fleet, jobs=4)
        until_snapshot(directory)
    flipped = flip(directory, 0.2)

    with running_fleet(directory, node_count=1) as fleet:
        assert fleet.run("job", "submit", "probe", "--tasks", "3", "--wait").returncode == 0
        verified = fleet.run("log", "verify", "-o", "json")
        assert (verified.returncode, json.loads(verified.stdout)["position"]) == (1, str(flipped))
        for reader in (("log", "replay"), ("log", "recheck"), ("log", "export", tmp_path / "short.hflog")):
            refused = fleet.run(*reader)
            assert (refused.returncode, f"record {flipped} " in refused.stderr) == (1, True), refused.stderr
        assert not (tmp_path / "short.hflog").exists()
        assert fleet.json("log", "verify", "--mirror")["verified"]

    restored = hivefold("log", "restore", "--mirror", "--segment", "1", "--dir", directory)
    assert restored.returncode == 0, restored.stderr
    with running_fleet(directory, node_count=1) as fleet:
        assert int(fleet.json("log", "verify")["sequence"]) > records


def test_a_log_that_rotted_is_restored_from_its_copy(tmp_path: Path) -> None:
    """The copy goes onto an empty server: same records, same state; the fleet goes on and takes new work."""
    directory, copy = tmp_path / "hf", tmp_path / "copy.hflog"
    with running_fleet(directory, node_count=1) as fleet:
        records = work(fleet, jobs=3)
        written = fleet.json("log", "export", copy)
        before = fleet.json("log", "replay", "--at", "end")
    flip(directory, 0.5)
    shutil.rmtree(directory / "nats" / "store")
    shutil.rmtree(directory / "state")  # the node saw the last records, which this copy lacks, and would refuse it

    for _ in range(2):  # repeating it changes nothing
        restored = hivefold("log", "restore", copy, "--dir", directory)
        assert restored.returncode == 0, restored.stderr

    with running_fleet(directory, node_count=1) as fleet:
        again = fleet.json("log", "export", tmp_path / "again.hflog", "--up-to", written["lastSequence"])
        assert again["lastHash"] == written["lastHash"]
        assert fleet.json("log", "replay", "--at", written["lastSequence"])["stateDigest"] == before["stateDigest"]
        assert work(fleet, jobs=1) > records


def test_another_log_is_not_written_over(tmp_path: Path) -> None:
    """A server that holds something else is left as it is, and the first difference is named."""
    for name in ("one", "two"):
        with running_fleet(tmp_path / name, node_count=1) as fleet:
            work(fleet, jobs=1)
            fleet.json("log", "export", tmp_path / f"{name}.hflog")

    refused = hivefold("log", "restore", tmp_path / "one.hflog", "--dir", tmp_path / "two")

    assert refused.returncode == 1
    assert "record 1 of the log is not that of the copy" in refused.stderr

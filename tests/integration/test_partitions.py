"""Partitions between real processes, each in a network namespace of its own: both ways, one way, and slow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.namespaces import BELOW, possible
from tests.integration.partitions import TASKS

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(420),
    pytest.mark.skipif(not possible(), reason="this system allows no network namespaces (unshare --user --net)"),
]


def test_cut_off_machines_lose_no_work_and_lead_no_second_fleet(tmp_path: Path) -> None:
    """A leader cut off, a node that cannot hear, a node that cannot be heard, a slow leader: all work is done once."""
    done = subprocess.run(
        [*BELOW, sys.executable, "-m", "tests.integration.partitions", tmp_path],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    logs = {path.name: path.read_text()[-1500:] for path in tmp_path.glob("*.log")}
    assert done.returncode == 0, f"{done.stderr[-3000:]}\n{logs}"
    found = json.loads(done.stdout)

    assert found["successor"] != found["leader"]
    assert found["refused"] == 4  # unavailable: the old leader must not take what it cannot record
    assert "on-the-wrong-side" not in found["requests"]
    assert found["states"] == ["JOB_STATE_SUCCEEDED"]
    assert (found["tasks"], found["twice"]) == (5 * TASKS, 0)
    assert found["lost"] == ["n1", "n2"]
    assert found["equal"]

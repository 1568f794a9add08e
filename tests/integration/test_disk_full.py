"""A real disk without room, below the server's store: what was acknowledged is done once there is room again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
BELOW = ("unshare", "--user", "--mount", "--map-root-user", "sh", "-c")
MOUNT = 'mount -t tmpfs -o size=48m none "$0" && exec "$@"'


def possible() -> bool:
    """Whether this system lets us mount a small disk of our own."""
    try:
        command = [*BELOW, MOUNT, "/mnt", "true"]
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@pytest.mark.skipif(not possible(), reason="this system allows no mounts of one's own (unshare --user --mount)")
def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Under load the disk fills up; room is made, the server restarted: each acknowledged task is done, once."""
    done = subprocess.run(
        [*BELOW, MOUNT, tmp_path, sys.executable, "-m", "tests.soak.disk", tmp_path],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)

    assert found["faults"] == [], found
    assert found["acknowledged"] > found["before"] + found["while_full"], "the fleet takes jobs again"

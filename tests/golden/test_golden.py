"""Logs that earlier releases wrote: today's code replays each to the state that it had then, for ever.

The records, their hashes and the outline of the state never change. The digest covers every field of the
state's classes: a release that gives them another one writes the new digest into the first line.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from coordinator.replay import Replayer
from hivefold.log.port import Stored
from tests.golden.outline import outline

LOGS = sorted(Path(__file__).parent.glob("*.jsonl"))


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_a_released_log_replays_to_its_state(path: Path) -> None:
    """Every record is read, the chain of hashes holds, and the state has the recorded digest."""
    expected, *lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    log = [Stored(sequence, line["subject"], base64.b64decode(line["data"])) for sequence, line in enumerate(lines, 1)]
    replayer = Replayer()
    replayer.feed(log)
    replayed = replayer.result()

    assert replayed.state.sequence == expected["records"]
    assert replayed.head_hash.hex() == expected["head_hash"]
    assert outline(replayed.state) == expected["outline"]
    assert replayed.digest() == expected["state_digest"]


def test_every_release_has_a_log() -> None:
    """The first release's log is there."""
    assert "0.1.0" in {path.stem for path in LOGS}

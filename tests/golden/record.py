"""Records the golden log of a release: `python -m tests.golden.record 0.1.0`. Never run twice for one release."""

from __future__ import annotations

import base64
import json
import sys
import typing
from pathlib import Path

from coordinator.core import events as ev
from coordinator.core.digest import state_digest
from coordinator.wire.records import GENESIS_HASH, NewRecord, record_hash
from hivefold.entropy import SeededEntropy
from tests.golden.outline import outline
from tests.scenarios.driver import Driver

FOLDER = Path(__file__).parent
STORY = """
term c1
model digits
node n1 zone=a
node n2 slots=4 gpus=1
node n3
observe n1
observe n2 loaded=yes cpu=50
infer rows 100000 timeout_s=600
probe quick 5 priority=interactive
probe picky 2 zone=a gpus=0 memory_gib=1 attempts=2
place
ok n1 quick 0-4#1
ok n2 quick 0-4#1
ok n3 quick 0-4#1
ok n2 rows 0-9#1
wait 1500
place
fail n1 picky RUNTIME_FAILED 0#1
wait 1500
place
fail n1 picky OUT_OF_MEMORY 0#2
silent n3 3000
silent n3 0
silent n3 6000
place
drain n1
probe late 3 timeout_s=1
place
leave n2
fail n2 rows RETURNED 10-11#1
leave n2 gone=yes
undrain n1
term c2
place
ok n1 rows 0-40#1
ok n1 rows 0-40#2
ok n1 rows 0-40#3
place
ok n1 rows 0-40#1
ok n1 rows 0-40#2
ok n1 rows 0-40#3
wait 2000
expire
model digits
probe unwanted 9
cancel unwanted
node n3 boot=b2
probe open 20
place
"""


def record(version: str) -> None:
    """Writes VERSION.jsonl: a line that says what must come out, then one line a record."""
    driver, entropy = Driver(), SeededEntropy(1)
    for line in STORY.strip().splitlines():
        for answer in driver.run(line):
            print(answer)
    seen = {type(event) for _, decision in driver.decisions for event in decision.events}
    assert seen == set(typing.get_args(ev.Event)), "the story must hold every event"
    previous, lines = GENESIS_HASH, []
    for command, decision in driver.decisions:
        sequence, term = decision.state.sequence, decision.state.term
        entry = NewRecord(sequence, term, entropy.draw(16), command, decision.events, previous, "").entry()
        previous = record_hash(sequence, entry.subject, entry.data)
        lines.append({"subject": entry.subject, "data": base64.b64encode(entry.data).decode()})
    expected = {
        "records": len(lines),
        "head_hash": previous.hex(),
        "state_digest": state_digest(driver.state),
        "outline": outline(driver.state),
    }
    text = "\n".join(json.dumps(line) for line in [expected, *lines])
    (FOLDER / f"{version}.jsonl").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    record(sys.argv[1])

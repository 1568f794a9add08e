"""What changed between two moments."""

from __future__ import annotations

from coordinator.audit.diff import Change, Mark, between, changes
from coordinator.audit.moments import state_at
from hivefold.log.memory import MemoryEventLog
from tests.unit.log.logs import golden_records

RECORDS = golden_records()


async def differing(first: int, last: int) -> dict[tuple[str, str], Change]:
    log = MemoryEventLog(list(RECORDS))
    old, new = await state_at(log, first), await state_at(log, last)
    return {(change.kind, change.name): change for change in changes(old.state, new.state)}


async def test_what_came_and_what_changed_is_told() -> None:
    """Jobs and nodes field by field; what stayed the same is not mentioned."""
    found = await differing(5, 20)

    assert found["node", "n3"].text.startswith("state online -> lost")
    assert found["job", "quick"].mark is Mark.ADDED
    assert "state succeeded" in found["job", "quick"].text
    assert ("model", "digits@1") not in found
    assert ("term", "1") not in found


async def test_nothing_changes_in_no_time() -> None:
    """A moment does not differ from itself."""
    assert await differing(20, 20) == {}


async def test_the_whole_log_is_what_changed_since_the_beginning() -> None:
    """From nothing: every model, node and job is new, and so is the term."""
    found = await differing(0, len(RECORDS))

    assert {name for kind, name in found if kind == "node"} == {"n1", "n2", "n3"}
    assert {change.mark for change in found.values()} == {Mark.ADDED}
    assert found["term", "2"].text == "0 -> 2, led by c2"


async def test_what_happened_in_between_is_counted() -> None:
    """By fact, over tasks and not over events."""
    counted = await between(MemoryEventLog(list(RECORDS)), after=5, up_to=20)

    counts = dict(counted.counts)
    assert counted.records == 15
    assert (counts["jobs accepted"], counts["jobs succeeded"], counts["attempts lost"]) == (3, 1, 4)
    assert counts["tasks succeeded"] == 13

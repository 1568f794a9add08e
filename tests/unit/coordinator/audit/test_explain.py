"""Stories: the log of a release, told by subject."""

from __future__ import annotations

import pytest

from coordinator.audit.explain import explain
from coordinator.audit.fleet_tellers import ModelTeller
from coordinator.audit.heard import Heard
from coordinator.audit.model_telling import model_change
from coordinator.audit.story import Line, Lines, Story, Tone
from coordinator.audit.subjects import Kind, parse_subject
from coordinator.core import events as ev
from coordinator.core import model_events as mev
from coordinator.core.model import Failure, Needs
from coordinator.core.placement import PlacementReason
from hivefold.errors import InvalidRequestError, LogCorruptError, NotFoundError, Reason
from hivefold.ids import BootId, ModelName, ModelRef, NodeId, RequestId
from hivefold.log.memory import MemoryEventLog
from hivefold.log.port import Stored
from tests import samples
from tests.unit.log.logs import golden_records

RECORDS = golden_records()


async def story(text: str, *, kind: Kind | None = None, limit: int = 100, after: int = 0) -> Story:
    subjects = parse_subject(text, kind)
    return await explain(MemoryEventLog(list(RECORDS)), subjects, after=after, up_to=len(RECORDS), limit=limit)


def titles(told: Story) -> list[str]:
    return [line.title for line in told.lines]


async def test_a_failed_job_tells_every_attempt_and_why_no_other_node() -> None:
    """Asked, planned, placed with each refused node's reason, failed twice, given up."""
    told = await story("picky")

    assert told.kind is Kind.JOB
    assert titles(told) == ["accepted", "planned", "assigned", "failed", "assigned", "failed", "failed"]
    assert [line.sequence for line in told.lines] == [10, 10, 11, 15, 16, 17, 17]
    assert told.lines[2].details == (
        "candidates, best first: n1 (0 free slots)",
        "refused n2: needs label zone=a, does not carry it (LABEL_MISSING)",
        "refused n3: needs label zone=a, does not carry it (LABEL_MISSING)",
    )
    assert "tried again after 200.0 ms" in told.lines[3].details
    assert dict(told.facts)["needs labels"] == "zone=a"
    assert dict(told.facts)["state"] == "failed"
    assert [(name, work.assigned, work.failed) for name, work in told.work] == [("n1", 3, 2)]


async def test_a_task_tells_its_own_attempts_only() -> None:
    """A task that was lost with its node: every attempt, its rows, and the digest of its output."""
    told = await story("rows/12")

    attempts = ["assigned", "lost", "assigned", "lost", "assigned", "answered"]
    assert titles(told) == ["accepted", "planned", *attempts]
    assert told.lines[3].cause == "silence of n3"
    assert dict(told.facts)["state"] == "succeeded"
    assert "sha256" in dict(told.facts)["output"]
    assert sum(work.row_count for _, work in told.work) > 0


async def test_every_row_belongs_to_one_task() -> None:
    """The rows that the stories of all tasks name follow each other."""
    ends = -1
    for task in range(17):
        first, last = dict((await story(f"rows/{task}")).facts)["input"].removeprefix("rows ").split(" to ")
        assert int(first.replace(",", "")) == ends + 1
        ends = int(last.replace(",", ""))
    assert ends == 99_999


async def test_a_take_over_is_part_of_a_job_that_lives_through_it() -> None:
    """Who leads changes in the middle of a job's story."""
    assert "take-over" in titles(await story("rows"))
    assert "take-over" not in titles(await story("quick"))


async def test_a_node_tells_its_boots_troubles_and_work() -> None:
    """Joins, suspicion, loss with the work that went with it, and the next boot."""
    told = await story("n3")

    assert titles(told) == ["joined", "suspected", "heard again", "given up", "lost work", "joined"]
    assert dict(told.facts)["boots"] == "2"
    assert ("quick", 1) in [(name, work.succeeded) for name, work in told.work]
    assert "drained" in titles(await story("n1"))
    assert [title for title in titles(await story("n2")) if title.startswith("le")] == ["leaves", "left"]


async def test_a_model_tells_its_jobs_and_where_it_ran() -> None:
    """By name or by version."""
    told = await story("digits@1")

    assert titles(told) == ["registered", "loaded", "used", "succeeded"]
    assert [name for name, _ in told.work] == ["n1", "n2", "n3"]
    assert titles(await story("digits")) == titles(told)


def test_a_model_tells_its_names_and_where_it_was_to_be_kept() -> None:
    """Each version what was decided about it; their name all of it, and nothing of other models."""
    digits, nodes, request = ModelName("digits"), (NodeId("n1"),), RequestId("r")
    events = (
        ev.ModelRegistered(samples.model("digits", version=1)),
        ev.ModelRegistered(samples.model("digits", version=2)),
        mev.AliasMoved(digits, "prod", 1, 0, "better", request),
        mev.ResidencySet(ModelRef("digits@1"), 2, pinned=True, needs=Needs(), request_id=request),
        mev.ReplicasPlaced(ModelRef("digits@1"), nodes, PlacementReason((), ())),
        mev.ReplicaFailed(ModelRef("digits@1"), nodes[0], BootId("b1"), Failure(Reason.OUT_OF_MEMORY, "too large")),
        mev.ReplicasReleased(ModelRef("digits@1"), nodes, mev.ReleaseCause.NOT_WANTED),
        mev.AliasMoved(digits, "prod", 2, 1, "", request),
        mev.AliasMoved(ModelName("other"), "prod", 1, 0, "", request),
        mev.AliasRemoved(digits, "prod", 2, "", request),
        mev.ModelRemoved(ModelRef("digits@1"), forced=False, note="", request_id=request),
    )

    def told(version: int) -> list[str]:
        teller = ModelTeller(digits, version, 100)
        teller.take(Heard(1, 1, 0, "somebody", events))
        story = teller.story()
        assert story is not None
        return titles(story)

    first = ["registered", "alias moved", "residency", "placed", "not loaded", "released", "removed"]
    assert told(1) == first
    assert told(2) == ["registered", "alias moved", "alias removed"]
    assert told(0) == ["registered", "registered", *first[1:-1], "alias moved", "alias removed", "removed"]


def test_what_nodes_must_have_to_keep_a_model_is_told() -> None:
    """Else nobody could say afterwards why a node was not among them."""
    needs = Needs((("zone", "a"),), memory_bytes=4096, gpu_count=1)
    event = mev.ResidencySet(ModelRef("digits@1"), 2, pinned=False, needs=needs, request_id=RequestId("r"))
    told = model_change(event)
    assert told is not None
    assert told.text == "digits@1 to be kept on 2 nodes, zone=a, 4,096 bytes of memory, 1 GPU"


async def test_a_story_can_begin_in_the_middle() -> None:
    """A segment's part of a story is told; the chain is followed from there."""
    assert titles(await story("picky", after=12)) == ["failed", "assigned", "failed", "failed"]


@pytest.mark.parametrize(("text", "kind"), [("nobody", None), ("picky/2", None), ("n1", Kind.JOB), ("digits@2", None)])
async def test_what_the_log_does_not_name_is_not_found(text: str, kind: Kind | None) -> None:
    """A task beyond the plan too."""
    with pytest.raises(NotFoundError, match="leaves no record"):
        await story(text, kind=kind)


@pytest.mark.parametrize(("text", "kind"), [("A b", None), ("job/x", None), ("n1", Kind.TASK), ("", None)])
def test_what_can_be_no_subject_is_refused(text: str, kind: Kind | None) -> None:
    """The message shows the forms."""
    with pytest.raises(InvalidRequestError, match="job/7"):
        parse_subject(text, kind)


async def test_an_altered_record_stops_the_story() -> None:
    """A story is told of what was written, or not at all."""
    records = list(RECORDS)
    records[10] = Stored(11, "log.other", records[10].data)

    with pytest.raises(LogCorruptError) as caught:
        await explain(MemoryEventLog(records), parse_subject("picky"), up_to=len(records), limit=9)

    assert caught.value.position == 12


async def test_a_long_story_keeps_its_beginning_and_its_end() -> None:
    """However many lines there are, at most the limit is kept, and how many are missing is known."""
    told = await story("rows", limit=5)
    whole = await story("rows")

    assert len(told.lines) == 5
    assert told.omitted == len(whole.lines) - 5
    assert (told.lines[:3], told.lines[3:]) == (whole.lines[:3], whole.lines[-2:])


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_lines_are_bounded(limit: int) -> None:
    """Also where the limit is one."""
    lines = Lines(limit)
    for number in range(20):
        lines.add(_line(number))

    assert len(lines) == limit
    assert lines.omitted == 20 - limit


def _line(number: int) -> Line:
    return Line(number, 0, 1, "", "", "", tone=Tone.PLAIN)

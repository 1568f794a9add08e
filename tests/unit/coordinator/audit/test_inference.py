"""Inference read back from the log: what is counted, and whether the batches are what the log commits to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

import pytest

from coordinator.audit.explain import explain
from coordinator.audit.inference import Auditor, Report, Selection, audit_inference, verified
from coordinator.audit.subjects import parse_subject
from coordinator.core.commands import RecordInferences, RegisterModel
from coordinator.core.inference import InferenceBatch
from coordinator.inference_intake import read_batch
from hivefold.bus.port import ResultMessage
from hivefold.ids import ModelName
from hivefold.log.memory import MemoryEventLog
from tests.samples import model
from tests.unit.coordinator.inference import batch_bytes, leading, subject_of

SECOND_US = 1_000_000
ALL = Selection()


class Kept:
    """Batches by position."""

    def __init__(self, batches: Mapping[int, bytes]) -> None:
        self.batches = dict(batches)

    async def inference_batches(self, positions: Sequence[int]) -> AsyncIterator[tuple[int, bytes]]:
        for position in positions:
            if position in self.batches:
                yield position, self.batches[position]


def summary(position: int, data: bytes, number: int, node: str = "n1", boot: str = "boot-1") -> InferenceBatch:
    found = read_batch(ResultMessage(position, subject_of(number, node, boot), data))
    assert found is not None
    return found[0]


DATA = {
    5: batch_bytes(1, requests=3),
    6: batch_bytes(1, node="n2", model="m@2", start_us=2 * SECOND_US),
    9: batch_bytes(2, requests=2, start_us=3 * SECOND_US),
}
BATCHES = (
    summary(5, DATA[5], 1),
    summary(6, DATA[6], 1, "n2"),
    summary(9, DATA[9], 2),
)


async def logged(*batches: InferenceBatch) -> MemoryEventLog:
    """A log that records each of them by itself."""
    log = MemoryEventLog()
    async with leading(log) as writer:
        for batch in batches:
            await writer.execute(RecordInferences((batch,)))
    return log


async def report_of(
    log: MemoryEventLog, kept: Kept | None = None, selection: Selection = ALL, *, after: int = 0
) -> Report:
    auditor = Auditor(selection, limit=100, contents=kept, whole=not after)
    return await audit_inference(log, auditor, after=after, up_to=(await log.head()).sequence)


async def test_shares_add_up_by_model_and_node() -> None:
    """From the log alone: nothing is looked at, and nothing claimed to be verified."""
    report = await report_of(await logged(*BATCHES))

    counts = {key: (share.requests, share.windows, share.full) for key, share in report.shares.items()}
    assert counts == {("m@1", "n1"): (5, 2, True), ("m@2", "n2"): (1, 1, False)}
    assert (report.batches, report.verified, report.gone, len(report.requests)) == (3, 0, 0, 0)
    assert report.shares["m@1", "n1"].durations.count == 5  # type: ignore[index]
    assert len(report.windows) == 3


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection("m", 2), {("m@2", "n2")}),
        (Selection("m"), {("m@1", "n1"), ("m@2", "n2")}),
        (Selection(node_id="n2"), {("m@2", "n2")}),
        (Selection("other"), set()),
    ],
)
async def test_what_is_asked_for_is_shown(selection: Selection, expected: set[tuple[str, str]]) -> None:
    """By name, by version, by node."""
    report = await report_of(await logged(*BATCHES), Kept(DATA), selection)

    assert set(report.shares) == expected


async def test_requests_come_from_batches_that_fit_their_digest() -> None:
    """Each with all that was recorded of it; their number is that of the windows."""
    report = await report_of(await logged(*BATCHES), Kept(DATA))

    assert (report.verified, report.gone, report.altered_count) == (3, 0, 0)
    assert report.shares["m@1", "n1"].recorded == 5  # type: ignore[index]
    first, second = list(report.requests)[:2]
    assert (first.time_us, second.time_us, first.caller, first.reason) == (SECOND_US, SECOND_US + 1, "somebody", None)
    assert (first.input_digest, first.output_digest, first.position) == ("01" * 32, "02" * 32, 5)


async def test_an_altered_batch_is_found_and_its_requests_are_not_believed() -> None:
    """One byte is enough; a batch that is not kept any more is told apart from it."""
    altered = {5: DATA[5].replace(b"somebody", b"somebodi"), 6: DATA[6]}

    report = await report_of(await logged(*BATCHES), Kept(altered))

    assert (report.verified, report.altered_count, [batch.position for batch in report.altered]) == (1, 1, [5])
    assert (report.gone, report.gone_requests, len(report.requests)) == (1, 2, 0)


def test_a_log_that_says_something_else_than_the_batch_is_found() -> None:
    """Whoever wrote the log cannot have other windows, nor another number of requests."""
    batch = BATCHES[0]
    (window,) = batch.windows
    lies = (
        replace(batch, windows=(replace(window, request_count=1),)),
        replace(batch, windows=(window, window)),
        replace(batch, request_count=2),
        replace(batch, number=7),
    )

    assert verified(batch, DATA[5]) is not None
    assert [verified(lie, DATA[5]) for lie in lies] == [None] * len(lies)


async def test_missing_batches_show_and_repeated_ones_count_once() -> None:
    """By the numbers of each boot; where the reader begins later, from the first one that it sees."""
    late = summary(20, batch_bytes(5, requests=1), 5)
    again = summary(21, batch_bytes(2, requests=2), 2)
    log = await logged(*BATCHES, late, again)

    report = await report_of(log)

    assert (report.missing_count, report.missing) == (2, [("n1", "boot-1", 3, 4)])
    assert (report.batches, report.shares["m@1", "n1"].requests) == (4, 6)  # type: ignore[index]
    assert (await report_of(log, after=3)).missing_count == 2
    assert (await report_of(log, after=4)).missing_count == 0


async def test_the_story_of_a_model_tells_its_inference_in_runs() -> None:
    """Windows without a pause are one line; after a pause, or something else that happened, another."""
    log = MemoryEventLog()
    batches = [
        summary(number, batch_bytes(number, requests=2, start_us=start_s * SECOND_US), number)
        for number, start_s in enumerate((1, 2, 3, 200, 201), 1)
    ]
    async with leading(log) as writer:
        await writer.execute(RegisterModel(replace(model(), name=ModelName("m"), version=1)))
        for batch in batches:
            await writer.execute(RecordInferences((batch,)))

    told = await explain(log, parse_subject("m@1"), up_to=(await log.head()).sequence, limit=50)

    assert [line.title for line in told.lines] == ["registered", "inferred", "inferred"]
    assert told.lines[1].text.startswith("6 requests for m@1 on n1, within 3.00 s, p50 ")
    assert told.lines[2].text.startswith("4 requests for m@1 on n1, within 2.00 s")
    assert dict(told.facts)["requests"] == "10 recorded"

"""Outcomes that make up too large a record are recorded in several; none holds up those behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import pytest

from coordinator.batch import Accepted, RecordTooLargeError
from coordinator.core.commands import ReportOutcomes
from coordinator.intake import Intake
from coordinator.writer import Writer
from hivefold.bus.memory import MemoryBroker
from hivefold.bus.port import ResultMessage, ResultReceiver
from hivefold.errors import Reason
from hivefold.v1 import model_pb2, work_pb2


class SmallRecords:
    """A writer whose records hold `most` outputs; keeps what it was given."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken: list[ReportOutcomes] = []

    async def execute(self, body: ReportOutcomes, *, traceparent: str = "") -> Accepted:
        if sum(report.output is not None for report in body.reports) > self.most:
            raise RecordTooLargeError("the decision is too large: ask for less at once")
        self.taken.append(body)
        return Accepted(0, (), None)  # type: ignore[arg-type]  # nobody looks at the state


class OneBatch:
    """A receiver of one batch that keeps what was acknowledged."""

    def __init__(self, batch: list[ResultMessage]) -> None:
        self.batch = batch
        self.acknowledged = 0

    async def batches(self) -> AsyncIterator[list[ResultMessage]]:
        yield self.batch

    async def acknowledge(self, up_to_sequence: int) -> None:
        self.acknowledged = up_to_sequence


def answer(task: int) -> ResultMessage:
    part = work_pb2.TensorPart(name="y", data_type=model_pb2.DATA_TYPE_FP32, shape=[1])
    output = work_pb2.TaskOutput(tensors=[part], digest="ab" * 32, size_bytes=4)
    outcome = work_pb2.Outcome(job_id="j", task=task, attempt=1, node_id="n", row_count=1, output=output)
    return ResultMessage(task + 1, f"results.n.j.{task}.1", outcome.SerializeToString())


@pytest.mark.parametrize("most", [1, 3, 100])
async def test_a_batch_is_recorded_in_as_many_commands_as_it_takes(most: int) -> None:
    """Every outcome is recorded once, in order, before the batch is acknowledged."""
    writer, results = SmallRecords(most), OneBatch([answer(task) for task in range(20)])
    await Intake(cast(Writer, writer), cast(ResultReceiver, results), MemoryBroker().connect().signals()).run()

    assert [report.task for body in writer.taken for report in body.reports] == list(range(20))
    assert all(report.failure is None for body in writer.taken for report in body.reports)
    assert results.acknowledged == 20


async def test_an_outcome_that_fits_nowhere_fails_its_attempt() -> None:
    """Rather than stopping the coordinator, again after each restart."""
    writer, results = SmallRecords(0), OneBatch([answer(0), answer(1)])
    await Intake(cast(Writer, writer), cast(ResultReceiver, results), MemoryBroker().connect().signals()).run()

    failures = [report.failure for body in writer.taken for report in body.reports]
    assert [failure.reason for failure in failures if failure] == [Reason.LIMIT_EXCEEDED] * 2

"""An outcome that comes as a signal is recorded at once; its stored copy is acknowledged, and only that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from coordinator.batch import Accepted
from coordinator.core.commands import ReportOutcomes
from coordinator.intake import Intake
from coordinator.writer import Writer
from hivefold.bus.memory import MemoryBroker
from hivefold.bus.port import Message
from hivefold.errors import UnavailableError
from hivefold.limits import EXPRESS_WAITING
from hivefold.v1 import work_pb2

SUBJECT = "results.n.j.0.1"


class Recording:
    """A writer that keeps what it was given; it may be held up, and may refuse."""

    def __init__(self) -> None:
        self.taken: list[ReportOutcomes] = []
        self.open = asyncio.Event()
        self.open.set()
        self.refusals = 0
        self.leading = True

    async def execute(self, body: ReportOutcomes, *, traceparent: str = "") -> Accepted:
        await self.open.wait()
        if self.refusals:
            self.refusals -= 1
            raise UnavailableError("the log cannot take it now; try again")
        self.taken.append(body)
        return Accepted(0, (), None)  # type: ignore[arg-type]  # nobody looks at the state

    @property
    def positions(self) -> list[int]:
        return [position for body in self.taken for column in body.columns for position in column.result_sequences]


class Rig:
    """An intake at a bus in memory, and a node's end of it."""

    def __init__(self) -> None:
        self.writer = Recording()
        self.broker = MemoryBroker()
        connection = self.broker.connect()
        self.node = self.broker.connect()
        self.intake = Intake(cast(Writer, self.writer), connection.result_receiver(), connection.signals())

    async def tell(self, outcome: work_pb2.Outcome, subject: str = SUBJECT) -> None:
        self.node.signals().publish(Message(f"express.{subject}", outcome.SerializeToString()))
        await turn()

    async def store(self, outcome: work_pb2.Outcome, subject: str = SUBJECT) -> None:
        await self.node.result_sender().send([(subject, outcome.SerializeToString())])
        await turn()


@asynccontextmanager
async def listening() -> AsyncIterator[Rig]:
    rig = Rig()
    running = asyncio.create_task(rig.intake.run())
    await turn()
    yield rig
    running.cancel()
    await asyncio.wait((running,))


async def turn() -> None:
    """Lets everything that is ready run."""
    for _ in range(10):
        await asyncio.sleep(0)


def success(task: int = 0) -> work_pb2.Outcome:
    return work_pb2.Outcome(job_id="j", task=task, attempt=1, node_id="n", row_count=1)


async def test_it_is_recorded_before_the_stream_has_it_and_only_once() -> None:
    """The copy in the stream is acknowledged without another command."""
    async with listening() as rig:
        await rig.tell(success())
        assert rig.writer.positions == [0]
        await rig.store(success())
        assert rig.writer.positions == [0]
        assert rig.broker.acknowledged == 1


async def test_its_copy_is_acknowledged_only_when_it_is_recorded() -> None:
    """A crash in between would lose it otherwise."""
    async with listening() as rig:
        rig.writer.open.clear()
        await rig.tell(success())
        await rig.store(success())
        assert rig.broker.acknowledged == 0
        rig.writer.open.set()
        await turn()
        assert rig.writer.positions == [0]
        assert rig.broker.acknowledged == 1


async def test_where_it_could_not_be_recorded_its_copy_is() -> None:
    """The log was away for a moment."""
    async with listening() as rig:
        rig.writer.refusals = 1
        await rig.tell(success())
        await rig.store(success())
        assert rig.writer.positions == [1]
        assert rig.broker.acknowledged == 1


async def test_a_coordinator_that_does_not_lead_leaves_it_to_the_stream() -> None:
    """Only the leader records."""
    async with listening() as rig:
        rig.writer.leading = False
        await rig.tell(success())
        assert not rig.writer.taken


async def test_output_that_comes_with_its_outcome_waits_for_the_stream() -> None:
    """It is read from its place there later, which a signal does not know."""
    async with listening() as rig:
        outcome = success()
        outcome.output.CopyFrom(work_pb2.TaskOutput(digest="ab" * 32, size_bytes=4))
        outcome.inline_output = b"1234"
        await rig.tell(outcome)
        assert not rig.writer.taken
        await rig.store(outcome)
        assert [report.result_sequence for body in rig.writer.taken for report in body.reports] == [1]


async def test_what_never_comes_to_the_stream_is_forgotten_in_time() -> None:
    """The memory of signals is bounded: the oldest is let go, and its copy would be decided upon again, in vain."""
    async with listening() as rig:
        for task in range(EXPRESS_WAITING + 5):
            await rig.tell(success(task), f"results.n.j.{task}.1")
        assert len(rig.writer.taken) == EXPRESS_WAITING + 5
        await rig.store(success(0), "results.n.j.0.1")
        assert rig.writer.positions[-1] == 1
        assert rig.broker.acknowledged == 1

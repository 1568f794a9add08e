"""Room for outcomes: made before there is none left, never at the cost of a job that is open."""

from __future__ import annotations

from coordinator.room import ResultRoom
from hivefold.bus.memory import MemoryBroker
from hivefold.bus.port import Message
from hivefold.ids import JobId
from hivefold.log.memory import MemoryEventLog
from hivefold.v1 import work_pb2
from tests.unit.coordinator.fleet import ScriptedNode, until, working
from tests.unit.coordinator.serving import serving


def _jobs(broker: MemoryBroker) -> list[str]:
    return [found.subject.split(".")[2] for found in broker.results.values()]


async def test_the_oldest_outcomes_make_room_and_those_of_open_jobs_stay() -> None:
    """With all room taken, nodes could store nothing and no job would end: so what ended long ago goes."""
    broker = MemoryBroker()
    for task in range(8):
        old = work_pb2.Outcome(job_id="old", node_id="n1", task=task, attempt=1)
        broker.store_result(f"results.n1.old.{task}.1", old.SerializeToString())
    all_but_one = ScriptedNode(
        broker, "n1", slots=4, script=lambda item: work_pb2.Outcome(row_count=1) if item.task < 3 else None
    )
    async with serving(MemoryEventLog(), broker) as served, working(all_but_one):
        job = await served.fleet.jobs.submit_probe(4)
        await until(lambda: _jobs(broker).count(job.job_id) == 3 and broker.acknowledged == 11)
        room = ResultRoom(served.writer, broker.connect().result_receiver())

        await room.look()
        assert len(broker.results) == 11
        broker.results_max_bytes = 1
        await room.look()
        assert _jobs(broker) == ["old"] * 5 + [job.job_id] * 3
        for _ in range(9):
            await room.look()
        assert _jobs(broker) == [job.job_id] * 3


async def test_an_outcome_that_came_as_a_signal_does_not_hold_up_what_is_old() -> None:
    """It has no position in the stream: were it taken for the first of all, nothing would ever go."""
    broker = MemoryBroker()
    for task in range(8):
        old = work_pb2.Outcome(job_id="old", node_id="n1", task=task, attempt=1)
        broker.store_result(f"results.n1.old.{task}.1", old.SerializeToString())
    silent = ScriptedNode(broker, "n1", slots=4, script=lambda _item: None)
    async with serving(MemoryEventLog(), broker) as served, working(silent):
        job = await served.fleet.jobs.submit_probe(2)
        await until(lambda: len(served.writer.state.jobs[JobId(job.job_id)].running) == 2 and broker.acknowledged == 8)
        outcome = work_pb2.Outcome(job_id=job.job_id, node_id="n1", task=0, attempt=1, row_count=1)
        subject = f"express.results.n1.{job.job_id}.0.1"
        broker.connect().signals().publish(Message(subject, outcome.SerializeToString()))
        await until(lambda: len(served.writer.state.jobs[JobId(job.job_id)].done) == 1)
        broker.results_max_bytes = 1
        await ResultRoom(served.writer, broker.connect().result_receiver()).look()

        assert len(_jobs(broker)) == 6

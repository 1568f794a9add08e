"""Dispatch, intake and presence together, over the fakes: jobs end whatever is lost on the way."""

from __future__ import annotations

from unittest.mock import patch

from coordinator.batch import Accepted
from coordinator.core import commands as cmd
from coordinator.core.invariants import violations
from coordinator.core.model import JobSpec, JobState, NodeState, ProbeSpec
from coordinator.replay import replay
from coordinator.writer import Writer
from hivefold import limits
from hivefold.bus.memory import MemoryBroker
from hivefold.bus.memory_ends import MemoryWorkSender
from hivefold.errors import BrokerUnavailableError
from hivefold.ids import JobId, NodeId, RequestId
from hivefold.log.memory import MemoryEventLog
from hivefold.v1 import error_pb2, work_pb2
from tests.unit.coordinator.fleet import ScriptedNode, coordinating, on_virtual_time, until, working


async def submit(writer: Writer, tasks: int, name: str = "j-1") -> JobId:
    answer = await writer.execute(cmd.SubmitJob(JobId(name), RequestId(name), JobSpec(ProbeSpec(tasks))))
    assert isinstance(answer, Accepted)
    return JobId(name)


def ended(writer: Writer, job_id: JobId) -> bool:
    return writer.state.jobs[job_id].state.final


@on_virtual_time
async def test_a_job_runs_to_its_end_over_three_nodes() -> None:
    """Every task is done once, spread over the nodes, and the log replays to the same state."""
    log, broker = MemoryEventLog(), MemoryBroker()
    nodes = [ScriptedNode(broker, f"n{i}") for i in range(3)]
    async with coordinating(log, broker) as writer, working(*nodes):
        await until(lambda: len(writer.state.nodes) == 3)
        job_id = await submit(writer, 500)
        await until(lambda: ended(writer, job_id))

        job = writer.state.jobs[job_id]
        assert job.state is JobState.SUCCEEDED
        assert len(job.done) == 500
        assert sorted(task for node in nodes for _, task, _ in node.seen) == list(range(500))
        assert all(node.seen for node in nodes)
        state = writer.state
        assert (await replay(log, up_to=state.sequence)).state == state


@on_virtual_time
async def test_the_work_of_a_silent_node_goes_to_others() -> None:
    """A node that stops beating is lost, its attempts are numbered anew, and nothing is done twice."""
    log, broker = MemoryEventLog(), MemoryBroker()
    silent = ScriptedNode(broker, "n1", script=lambda item: None)
    steady = ScriptedNode(broker, "n2")
    async with coordinating(log, broker) as writer:
        async with working(silent):
            await until(lambda: len(writer.state.nodes) == 1)
            job_id = await submit(writer, 3)
            await until(lambda: len(silent.seen) > 0)
        async with working(steady):
            await until(lambda: ended(writer, job_id))

        job = writer.state.jobs[job_id]
        assert job.state is JobState.SUCCEEDED
        assert job.attempts_lost == len(silent.seen)
        assert writer.state.nodes[NodeId("n1")].state is NodeState.LOST
        assert not violations(writer.state)


@on_virtual_time
async def test_a_new_coordinator_sends_again_exactly_what_is_owed() -> None:
    """After a crash the owed attempts go out under the new term, and the job ends."""
    log, broker = MemoryEventLog(), MemoryBroker()
    answering: list[bool] = []
    node = ScriptedNode(broker, "n1", slots=2, script=lambda item: work_pb2.Outcome(row_count=1) if answering else None)
    async with working(node):
        async with coordinating(log, broker) as writer:
            await until(lambda: len(writer.state.nodes) == 1)
            job_id = await submit(writer, 10)
            await until(lambda: len(node.seen) > 0)
        answering.append(True)
        async with coordinating(log, broker) as successor:
            await until(lambda: ended(successor, job_id))

            assert successor.state.term == 2
            assert successor.state.jobs[job_id].state is JobState.SUCCEEDED
            assert node.terms[-1] == 2


@on_virtual_time
async def test_work_lost_with_the_brokers_memory_is_sent_again() -> None:
    """A node that says it has nothing while it is owed work is sent it again."""
    log, broker = MemoryEventLog(), MemoryBroker()
    node = ScriptedNode(broker, "n1")
    async with coordinating(log, broker) as writer:
        async with working(ScriptedNode(broker, "n1", script=lambda item: None)):
            await until(lambda: len(writer.state.nodes) == 1)
            job_id = await submit(writer, 2)
            await until(lambda: writer.state.nodes[NodeId("n1")].outstanding > 0)
        broker.drop_work("n1")
        async with working(node):
            await until(lambda: ended(writer, job_id))

        assert writer.state.jobs[job_id].state is JobState.SUCCEEDED


@on_virtual_time
async def test_a_task_that_fails_on_one_node_is_tried_on_another() -> None:
    """Bounded attempts on different nodes; the good node's answer counts."""
    log, broker = MemoryEventLog(), MemoryBroker()

    def failing(item: work_pb2.WorkItem) -> work_pb2.Outcome:
        failure = error_pb2.Failure(reason=error_pb2.REASON_RUNTIME_FAILED, message="no", retryable=True)
        return work_pb2.Outcome(failure=failure)

    nodes = ScriptedNode(broker, "bad", script=failing), ScriptedNode(broker, "good")
    async with coordinating(log, broker) as writer, working(*nodes):
        await until(lambda: len(writer.state.nodes) == 2)
        job_id = await submit(writer, 2)
        await until(lambda: ended(writer, job_id))

        job = writer.state.jobs[job_id]
        assert job.state is JobState.SUCCEEDED
        assert {done.node_id for done in job.done.values()} == {"good"}
        assert job.attempts_failed >= 1


@on_virtual_time
async def test_a_leaving_node_gets_no_new_work_and_leaves() -> None:
    """LEAVING first, LEFT when it has nothing any more; a job then waits for another node."""
    log, broker = MemoryEventLog(), MemoryBroker()
    node = ScriptedNode(broker, "n1")
    async with coordinating(log, broker) as writer, working(node):
        await until(lambda: len(writer.state.nodes) == 1)
        node.leaving = True
        await until(lambda: writer.state.nodes[NodeId("n1")].state is NodeState.LEFT)
        job_id = await submit(writer, 1)
        async with working(ScriptedNode(broker, "n2")):
            await until(lambda: ended(writer, job_id))

        assert not node.seen


async def come_and_go(broker: MemoryBroker, writer: Writer, node_id: NodeId) -> None:
    """A node that joins, and dies."""
    async with working(ScriptedNode(broker, node_id)):
        await until(lambda: node_id in writer.state.nodes)
    await until(lambda: writer.state.nodes[node_id].state is NodeState.LOST)


@on_virtual_time
async def test_a_fleet_whose_nodes_come_and_go_never_turns_newcomers_away() -> None:
    """As with containers that get a new name at each start: who is gone for long makes room for who comes."""
    log, broker = MemoryEventLog(), MemoryBroker()
    with patch.object(limits, "NODES_HEARD", 4), patch.object(limits, "GONE_NODES", 2):
        async with coordinating(log, broker) as writer:
            for number in range(8):
                await come_and_go(broker, writer, NodeId(f"n{number}"))


@on_virtual_time
async def test_a_node_that_cannot_be_forgotten_keeps_no_work_from_others() -> None:
    """The broker refuses to drop the consumer of one that is gone: after a take-over work goes out all the same."""
    log, broker = MemoryEventLog(), MemoryBroker()
    async with coordinating(log, broker) as writer:
        async with working(ScriptedNode(broker, "gone")):
            await until(lambda: len(writer.state.nodes) == 1)
        await until(lambda: writer.state.nodes[NodeId("gone")].state is NodeState.LOST)
        job_id = await submit(writer, 3)
    refused: list[str] = []

    async def refuse(_sender: MemoryWorkSender, node_id: str) -> None:
        refused.append(node_id)
        raise BrokerUnavailableError("the consumer is stuck")

    with patch.object(MemoryWorkSender, "forget", refuse):
        async with working(ScriptedNode(broker, "n1")), coordinating(log, broker) as successor:
            await until(lambda: ended(successor, job_id))
            await until(lambda: bool(refused))
    assert set(refused) == {"gone"}

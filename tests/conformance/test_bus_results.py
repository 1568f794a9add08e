"""What every adapter of ResultSender and ResultReceiver keeps to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from hivefold.bus import api, streams
from hivefold.bus.port import ResultMessage
from hivefold.bus.results import NatsResultReceiver, NatsResultSender
from hivefold.errors import LimitExceededError, NotFoundError
from hivefold.limits import BROKER_MESSAGE_BYTES, RESULTS_BATCH
from tests.fixtures.bus import NODE, Bus, Ends, NatsBus, ResultReceiver, soon

pytestmark = pytest.mark.integration


def _outcomes(count: int, job: str = "job-a", start: int = 0) -> list[tuple[str, bytes]]:
    return [(f"results.{NODE}.{job}.{task}.1", f"{job} {task}".encode()) for task in range(start, start + count)]


async def _take(batches: AsyncIterator[Sequence[ResultMessage]], count: int) -> list[ResultMessage]:
    found: list[ResultMessage] = []
    while len(found) < count:
        found.extend(await soon(anext(batches)))
    assert len(found) == count
    return found


async def test_outcomes_are_read_in_order_from_the_first(bus: Bus) -> None:
    """More than one atomic batch: all are stored, once each, at contiguous positions."""
    coordinator, node = await bus.coordinator(), await bus.node()
    outcomes = _outcomes(3 * RESULTS_BATCH + 1)
    await node.result_sender.send(outcomes)
    found = await _take(coordinator.new_result_receiver().batches(), len(outcomes))
    assert [message.sequence for message in found] == list(range(1, len(outcomes) + 1))
    assert sorted((message.subject, message.data) for message in found) == sorted(outcomes)


async def test_an_outcome_is_handed_over_while_the_receiver_waits(bus: Bus) -> None:
    """No polling by the caller: one wait, one outcome."""
    coordinator, node = await bus.coordinator(), await bus.node()
    batches = coordinator.new_result_receiver().batches()
    waiting = asyncio.ensure_future(anext(batches))
    await node.result_sender.send(_outcomes(1))
    assert [message.data for message in await soon(waiting)] == [b"job-a 0"]


async def test_the_first_outcome_of_a_subject_stays(bus: Bus) -> None:
    """A second one is no error; what else is in its batch is stored."""
    coordinator, node = await bus.coordinator(), await bus.node()
    await node.result_sender.send(_outcomes(5))
    again = [(subject, b"late") for subject, _ in _outcomes(8)]
    await node.result_sender.send(again)
    found = await _take(coordinator.new_result_receiver().batches(), 8)
    assert sorted(message.data for message in found) == sorted(
        [b"job-a %d" % task for task in range(5)] + [b"late"] * 3
    )


async def test_only_unacknowledged_outcomes_come_again_after_a_restart(bus: Bus) -> None:
    """A new receiver, as of a restarted coordinator, begins after the last acknowledged position."""
    coordinator, node = await bus.coordinator(), await bus.node()
    receiver = coordinator.new_result_receiver()
    await node.result_sender.send(_outcomes(10))
    found = await _take(receiver.batches(), 10)
    await receiver.acknowledge(found[3].sequence)
    await receiver.close()
    restarted = (await bus.coordinator()).new_result_receiver()
    again = await _take(restarted.batches(), 6)
    assert again == found[4:]


async def test_nothing_is_missing_or_repeated_when_the_broker_is_killed(bus: Bus) -> None:
    """Outcomes sent while it is away are stored after its return; the waiting receiver gets each once."""
    coordinator, node = await bus.coordinator(), await bus.node()
    receiver = coordinator.new_result_receiver()
    batches = receiver.batches()
    await node.result_sender.send(_outcomes(5))
    before = await _take(batches, 5)
    await receiver.acknowledge(before[1].sequence)
    waiting = asyncio.ensure_future(_take(batches, 7))
    await bus.stop_server()
    sending = asyncio.ensure_future(node.result_sender.send(_outcomes(7, start=5)))
    await asyncio.sleep(0)
    assert not sending.done()
    await bus.start_server()
    await soon(sending)
    after = await soon(waiting)
    assert [message.sequence for message in before + after] == list(range(1, 13))


async def test_an_outcome_can_be_read_by_its_position(bus: Bus) -> None:
    """For the assembly of outputs; a position that holds nothing is not found."""
    coordinator, node = await bus.coordinator(), await bus.node()
    await node.result_sender.send(_outcomes(2))
    receiver = coordinator.new_result_receiver()
    assert (await receiver.get(2)).data == b"job-a 1"
    with pytest.raises(NotFoundError):
        await receiver.get(3)


async def test_purging_a_job_leaves_the_others(bus: Bus) -> None:
    """Its outcomes are gone, from all nodes; those of other jobs can still be read."""
    coordinator, node = await bus.coordinator(), await bus.node()
    await node.result_sender.send([*_outcomes(2, "job-a"), *_outcomes(1, "job-ab")])
    receiver = coordinator.new_result_receiver()
    await _take(receiver.batches(), 3)
    await receiver.acknowledge(2)
    await receiver.purge_job("job-a")
    assert (await receiver.get(3)).data == b"job-ab 0"
    with pytest.raises(NotFoundError):
        await receiver.get(1)


async def test_purging_takes_nothing_that_is_not_acknowledged(bus: Bus) -> None:
    """JetStream counts purged messages, and all before them, as acknowledged: unrecorded outcomes would be lost."""
    coordinator, node = await bus.coordinator(), await bus.node()
    await node.result_sender.send([*_outcomes(2, "job-a"), *_outcomes(2, "job-b")])
    receiver = coordinator.new_result_receiver()
    await _take(receiver.batches(), 4)
    await receiver.purge_job("job-b")
    await receiver.close()
    again = await _take((await bus.coordinator()).new_result_receiver().batches(), 4)
    assert [message.sequence for message in again] == [1, 2, 3, 4]


async def test_an_end_that_only_purges_knows_what_another_has_acknowledged_since(bus: Bus) -> None:
    """As that which serves `job erase`, beside the one of the term: what it asked for once is soon old."""
    coordinator, node = await bus.coordinator(), await bus.node()
    receiver, purger = coordinator.new_result_receiver(), coordinator.new_result_receiver()
    batches = receiver.batches()
    for job, last in (("job-a", 2), ("job-b", 4)):
        await node.result_sender.send(_outcomes(2, job))
        await _take(batches, 2)
        await receiver.acknowledge(last)
        await soon(_purged(purger, job, last))


async def _purged(receiver: ResultReceiver, job: str, position: int) -> None:
    """Purges until it is gone: an acknowledgement takes a moment to arrive."""
    while True:
        await receiver.purge_job(job)
        try:
            await receiver.get(position)
        except NotFoundError:
            return
        await asyncio.sleep(0.02)


async def test_the_oldest_outcomes_are_dropped_a_quarter_at_a_time(bus: Bus) -> None:
    """Nothing that is needed from some position on, and nothing that is not acknowledged."""
    coordinator, node = await bus.coordinator(), await bus.node()
    await node.result_sender.send(_outcomes(8))
    receiver = coordinator.new_result_receiver()
    await _take(receiver.batches(), 8)

    assert await receiver.drop_oldest(100) == 0
    await receiver.acknowledge(3)
    assert await receiver.drop_oldest(2) == 1
    assert await receiver.drop_oldest(100) == 2
    assert await receiver.drop_oldest(100) == 0
    await receiver.acknowledge(8)
    assert await receiver.drop_oldest(100) == 2
    with pytest.raises(NotFoundError):
        await receiver.get(5)
    assert (await receiver.get(6)).data == b"job-a 5"
    assert not await receiver.is_crowded()


async def test_close_ends_the_batches(bus: Bus) -> None:
    """A receiver that waits is woken."""
    coordinator = await bus.coordinator()
    receiver = coordinator.new_result_receiver()
    waiting = asyncio.ensure_future(anext(receiver.batches(), None))
    await asyncio.sleep(0)
    await receiver.close()
    assert await soon(waiting) is None


async def test_a_lost_consumer_loses_no_outcome(nats_bus: NatsBus) -> None:
    """The receiver makes a new one after the last acknowledged outcome and passes over what it had."""
    link = await nats_bus.coordinator_link()
    receiver, sender = NatsResultReceiver(link), NatsResultSender(await nats_bus.node_link())
    batches = receiver.batches()
    await sender.send(_outcomes(4))
    await _take(batches, 4)
    await receiver.acknowledge(2)
    waiting = asyncio.ensure_future(_take(batches, 3))
    await asyncio.sleep(0)
    await api.call(link, f"CONSUMER.DELETE.{streams.RESULTS}.{streams.COORDINATOR}")
    await sender.send(_outcomes(3, start=4))
    assert [message.sequence for message in await soon(waiting)] == [5, 6, 7]


async def test_a_full_stream_makes_senders_wait(nats_bus: NatsBus) -> None:
    """Nothing is lost: what did not fit is stored once there is room again."""
    link = await nats_bus.coordinator_link()
    await streams.prepare_streams(link, streams.StreamSettings(results_max_bytes=20_000))
    receiver, sender = NatsResultReceiver(link), NatsResultSender(await nats_bus.node_link())
    await sender.send([(f"results.{NODE}.job-a.0.1", b"x" * 15_000)])
    await _take(receiver.batches(), 1)
    await receiver.acknowledge(1)
    sending = asyncio.ensure_future(sender.send([(f"results.{NODE}.job-b.0.1", b"y" * 15_000)]))
    await asyncio.wait([sending], timeout=0.2)
    assert not sending.done()
    await receiver.purge_job("job-a")
    await soon(sending)
    assert (await receiver.get(2)).data == b"y" * 15_000


async def test_a_stream_is_crowded_before_it_is_full(nats_bus: NatsBus) -> None:
    """So that room is made before a sender has to wait."""
    link = await nats_bus.coordinator_link()
    await streams.prepare_streams(link, streams.StreamSettings(results_max_bytes=20_000))
    receiver, sender = NatsResultReceiver(link), NatsResultSender(await nats_bus.node_link())
    await sender.send([(f"results.{NODE}.job-a.0.1", b"x" * 8_000)])
    assert not await receiver.is_crowded()
    await sender.send([(f"results.{NODE}.job-a.1.1", b"x" * 9_000)])
    assert await receiver.is_crowded()


async def test_an_outcome_that_no_server_takes_is_refused(nats_bus: NatsBus) -> None:
    """With nothing stored: sending it would end the connection, again and again."""
    node: Ends = await nats_bus.node()
    with pytest.raises(LimitExceededError, match="store the content as a blob"):
        await node.result_sender.send([*_outcomes(1), (f"results.{NODE}.job-b.0.1", bytes(BROKER_MESSAGE_BYTES))])


async def test_a_stream_made_anew_is_read_from_its_start(nats_bus: NatsBus) -> None:
    """Its positions begin at 1 again: what comes there is new, whatever was read before."""
    link = await nats_bus.coordinator_link()
    receiver, sender = NatsResultReceiver(link), NatsResultSender(await nats_bus.node_link())
    batches = receiver.batches()
    await sender.send(_outcomes(4))
    found = await _take(batches, 4)
    await receiver.acknowledge(found[-1].sequence)
    waiting = asyncio.ensure_future(_take(batches, 2))
    await asyncio.sleep(0)
    await api.call(link, f"STREAM.DELETE.{streams.RESULTS}")
    await streams.prepare_streams(link)
    await sender.send(_outcomes(2, job="job-b"))
    assert [message.data for message in await soon(waiting)] == [b"job-b 0", b"job-b 1"]

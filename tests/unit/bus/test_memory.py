"""Faults of the bus in memory: what tests and the simulation can ask for."""

from __future__ import annotations

import asyncio

import pytest

from hivefold.bus.memory import Fault, MemoryBroker
from hivefold.bus.memory_ends import subject_matches
from hivefold.bus.port import Message
from hivefold.errors import BrokerUnavailableError

_SUBJECT = "heartbeat.n1"


@pytest.mark.parametrize(
    ("pattern", "subject", "matches"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.*", "a", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("*.b", "a.b", True),
    ],
)
def test_patterns_match_as_in_nats(pattern: str, subject: str, matches: bool) -> None:
    """A star is one token, a final > is one or more."""
    assert subject_matches(pattern, subject) is matches


@pytest.mark.parametrize(("fault", "count"), [(Fault.PASS, 1), (Fault.DROP, 0), (Fault.REPEAT, 2), (Fault.DELAY, 0)])
async def test_a_signal_suffers_its_fault(fault: Fault, count: int) -> None:
    """Passed, dropped, repeated; delayed until release."""
    broker = MemoryBroker(lambda _subject: fault)
    signals = broker.connect().signals()
    heard: list[Message] = []
    await signals.subscribe("heartbeat.>", heard.append)
    signals.publish(Message(_SUBJECT, b"1"))
    assert len(heard) == count
    broker.release()
    assert len(heard) == (1 if fault is Fault.DELAY else count)


@pytest.mark.parametrize(("fault", "count"), [(Fault.PASS, 1), (Fault.DROP, 0), (Fault.REPEAT, 2), (Fault.DELAY, 0)])
async def test_work_suffers_its_fault_but_is_not_lost(fault: Fault, count: int) -> None:
    """A lost delivery comes after the wait for acknowledgements, a delayed one on release."""
    broker = MemoryBroker(lambda _subject: fault)
    connection = broker.connect()
    await connection.work_sender().send("n1", b"work")
    deliveries = connection.work_receiver("n1").deliveries()
    for _ in range(count):
        assert (await anext(deliveries)).data == b"work"
    waiting = asyncio.ensure_future(anext(deliveries))
    await asyncio.sleep(0)
    assert not waiting.done()
    broker.release()
    broker.redeliver("n1")
    assert (await waiting).data == b"work"


async def test_a_delayed_outcome_keeps_its_sender_waiting() -> None:
    """Send returns when it is stored, and not before."""
    broker = MemoryBroker(lambda _subject: Fault.DELAY)
    sending = asyncio.ensure_future(broker.connect().result_sender().send([("results.n1.j.0.1", b"x")]))
    await asyncio.sleep(0)
    assert not sending.done()
    broker.release()
    await sending
    assert broker.results[1].data == b"x"


async def test_one_connection_may_be_cut_off_alone() -> None:
    """A partition: it neither sends nor hears; the others go on."""
    broker = MemoryBroker()
    near, far = broker.connect(), broker.connect()
    heard_near: list[Message] = []
    heard_far: list[Message] = []
    await near.signals().subscribe(_SUBJECT, heard_near.append)
    await far.signals().subscribe(_SUBJECT, heard_far.append)
    far.disconnect()
    near.signals().publish(Message(_SUBJECT, b"1"))
    far.signals().publish(Message(_SUBJECT, b"2"))
    with pytest.raises(BrokerUnavailableError):
        await far.work_sender().send("n1", b"work")
    assert [message.data for message in heard_near] == [b"1"]
    assert heard_far == []

"""Which operations on the bus come how often."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from hivefold.limits import CHUNK_BYTES
from tests.truth import on_bus
from tests.truth.operations import Operation
from tests.truth.sides import NODES

_TOKENS = ("heartbeat", "telemetry", "node-1", "node-2", "x")
_HEADERS: tuple[Mapping[str, str], ...] = ({}, {}, {"Traceparent": "00-1"}, {"A": "1", "b-C": "two words"})


def draw_on_work(chance: Random) -> Operation:
    """One operation on work."""
    node = chance.choice(NODES)
    match chance.choices(range(5), (30, 3, 20, 30, 1))[0]:
        case 0:
            return on_bus.SendWork(node, chance.choice((0, 20, 3000)), chance.choice(_HEADERS))
        case 1:
            return on_bus.PrepareNode(node)
        case 2:
            return on_bus.TakeWork(node)
        case 3:
            verdict = chance.choice(("acknowledge", "acknowledge", "acknowledge", "give back", "in progress"))
            return on_bus.AnswerWork(node, chance.randrange(8), verdict)
        case _:
            return on_bus.ForgetNode(node)


def draw_on_outcomes(chance: Random) -> Operation:
    """One operation on outcomes."""
    match chance.choices(range(6), (30, 20, 15, 15, 2, 2))[0]:
        case 0:
            return on_bus.SendOutcomes(
                chance.choice(NODES),
                job=chance.randrange(4),
                first=chance.randrange(40),
                count=chance.choice((1, 1, 2, 4, 7, 12)),
                large=chance.random() < 0.02,
            )
        case 1:
            return on_bus.TakeOutcomes()
        case 2:
            return on_bus.AcknowledgeOutcomes(chance.randrange(20))
        case 3:
            return on_bus.GetOutcome(chance.randrange(-2, 20))
        case 4:
            return on_bus.PurgeJob(chance.randrange(4))
        case _:
            return on_bus.RestartReceiver()


def draw_on_the_rest(chance: Random) -> Operation:
    """One operation on signals, events or chunks."""
    match chance.choices(range(7), (10, 4, 40, 8, 15, 20, 1))[0]:
        case 0:
            # A pattern of wildcards alone would hear what adapters and server say to each other.
            tokens = [chance.choice(_TOKENS), *(chance.choice((*_TOKENS, "*")) for _ in range(chance.randrange(3)))]
            return on_bus.Subscribe(chance.randrange(6), ".".join((*tokens, ">") if chance.random() < 0.3 else tokens))
        case 1:
            return on_bus.Unsubscribe(chance.randrange(6))
        case 2:
            subject = ".".join(chance.choice(_TOKENS) for _ in range(chance.randrange(1, 4)))
            return on_bus.Publish(
                chance.choice((subject,) * 20 + ("a b", "", "a..b", ".a", "a.")), chance.choice(_HEADERS)
            )
        case 3:
            return on_bus.SendEvents(chance.randrange(1, 5))
        case 4:
            return on_bus.PutChunk(chance.randrange(30), chance.choice((0, 100, 100, 5000, CHUNK_BYTES)))
        case 5:
            return on_bus.GetChunk(chance.randrange(30))
        case _:
            return on_bus.FillChunks()

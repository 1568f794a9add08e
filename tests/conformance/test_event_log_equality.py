"""The fake log is honest: whatever is done to it and to a real nats-server, both answer the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hivefold.bus import api
from hivefold.bus.connection import connect
from hivefold.bus.link import Link
from hivefold.errors import HivefoldError, LogCorruptError
from hivefold.log.jetstream import open_log
from hivefold.log.memory import MemoryEventLog
from hivefold.log.port import TERM_SUBJECT, Entry, EventLog
from hivefold.log.stream import STREAM
from hivefold.server.embedded import EmbeddedServer
from tests.fixtures.nats import require_nats_server

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Append:
    """An append by a writer whose idea of the log may be wrong by so much."""

    count: int
    tag: int
    term: bool = False
    off_sequence: int = 0
    off_term: int = 0


@dataclass(frozen=True)
class Read:
    """A read of a part of the log, perhaps past its end."""

    after: int
    length: int


operations = st.lists(
    st.builds(
        Append,
        count=st.sampled_from([1, 1, 2, 5]),
        tag=st.integers(0, 3),
        term=st.booleans(),
        off_sequence=st.sampled_from([0, 0, 0, -1, -2, 1]),
        off_term=st.sampled_from([0, 0, 0, -1, 1]),
    )
    | st.builds(Read, after=st.integers(0, 12), length=st.integers(0, 12)),
    max_size=15,
)


async def answer(log: EventLog, operation: Append | Read) -> object:
    """What the log says, in a form that can be compared."""
    try:
        match operation:
            case Read(after, length):
                pages = log.read(after=after, up_to=after + length)
                return [(r.sequence, r.subject, r.data) async for page in pages for r in page]
            case Append():
                head = await log.head()
                expected = max(0, head.sequence + operation.off_sequence)
                # Bytes are unique by their place, as records are; the same place and tag is the same record again.
                subject = TERM_SUBJECT if operation.term else "log.job.j"
                batch = [
                    Entry(subject, f"{expected}-{number}-{operation.tag}".encode())
                    for number in range(1 if operation.term else operation.count)
                ]
                term = max(0, head.term_sequence + operation.off_term)
                await log.append(batch, expected_sequence=expected, term_sequence=term)
                return await log.head()
    except LogCorruptError as error:
        return type(error), error.position
    except HivefoldError as error:
        return type(error)


async def play(link: Link, script: list[Append | Read]) -> None:
    if (await api.call(link, "INFO"))["streams"]:
        await api.call(link, f"STREAM.DELETE.{STREAM}")
    real, fake = await open_log(link), MemoryEventLog()
    for operation in script:
        assert await answer(real, operation) == await answer(fake, operation), operation


class Stage:
    """A server and a connection that outlive the examples, on a loop of their own."""

    def __init__(self, runner: asyncio.Runner, link: Link) -> None:
        self.runner = runner
        self.link = link


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory: Path = tmp_path_factory.mktemp("equality")
    with asyncio.Runner() as runner:
        runner.run(require_nats_server())
        server = runner.run(EmbeddedServer(directory, port=0).start())
        link = runner.run(connect(server.core))
        yield Stage(runner, link)
        runner.run(link.close())
        runner.run(server.stop())


@settings(max_examples=60)
@given(script=operations)
def test_the_fake_and_the_server_answer_alike(stage: Stage, script: list[Append | Read]) -> None:
    """Same heads, same records, same errors with the same positions, for any order of right and wrong calls."""
    stage.runner.run(play(stage.link, script))

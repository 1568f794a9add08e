"""What every EventLog keeps to: the same suite for the fake and for a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import pytest
import pytest_asyncio

from hivefold.bus.connection import connect
from hivefold.errors import BrokerUnavailableError, FencedError, LogCorruptError
from hivefold.limits import APPEND_BATCH_RECORDS, RECORD_BYTES
from hivefold.log.jetstream import open_log
from hivefold.log.memory import MemoryEventLog
from hivefold.log.port import TERM_SUBJECT, Entry, EventLog, Head, Stored
from hivefold.server.embedded import RunningServer

pytestmark = pytest.mark.integration


class Store(Protocol):
    """Where a log is kept: several coordinators may open it."""

    async def open(self) -> EventLog: ...


class MemoryStore:
    def __init__(self) -> None:
        self._records: list[Stored] = []

    async def open(self) -> EventLog:
        return MemoryEventLog(self._records)


class JetStreamStore:
    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self.logs: list[EventLog] = []

    async def open(self) -> EventLog:
        log = await open_log(await connect(self._server.core))
        self.logs.append(log)
        return log


@pytest.fixture
def memory() -> Store:
    return MemoryStore()


@pytest_asyncio.fixture
async def jetstream(nats_server: RunningServer) -> AsyncIterator[Store]:
    store = JetStreamStore(nats_server)
    yield store
    for log in store.logs:
        await log.close()


@pytest.fixture(params=["memory", "jetstream"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(request.param)
    return found


@pytest_asyncio.fixture
async def log(store: Store) -> EventLog:
    return await store.open()


def entries(count: int, tag: str = "") -> list[Entry]:
    return [Entry(f"log.job.j{number % 3}", f"{tag}-{number}".encode()) for number in range(count)]


async def everything(log: EventLog) -> list[Stored]:
    head = await log.head()
    return [record async for page in log.read(after=0, up_to=head.sequence) for record in page]


async def begin_term(log: EventLog, data: bytes = b"term") -> Head:
    """Starts a term at the end of the log, as a new leader does."""
    head = await log.head()
    await log.append([Entry(TERM_SUBJECT, data)], expected_sequence=head.sequence, term_sequence=head.term_sequence)
    return Head(head.sequence + 1, head.sequence + 1)


async def append(log: EventLog, batch: Sequence[Entry], head: Head) -> Head:
    await log.append(batch, expected_sequence=head.sequence, term_sequence=head.term_sequence)
    return Head(head.sequence + len(batch), head.term_sequence)


async def test_an_empty_log_ends_at_zero(log: EventLog) -> None:
    """Without records the head is 0, without a term its sequence is 0."""
    assert await log.head() == Head(0, 0)
    assert await everything(log) == []


async def test_the_head_follows_appends_and_terms(log: EventLog) -> None:
    """The head names the last record and the last term record."""
    head = await begin_term(log)
    head = await append(log, entries(3), head)

    assert await log.head() == head == Head(4, 1)


@pytest.mark.parametrize("count", [1, 2, APPEND_BATCH_RECORDS])
async def test_what_was_appended_is_read_as_it_was(log: EventLog, count: int) -> None:
    """Subjects and bytes come back in order, with sequences from 1 without gaps."""
    head = await begin_term(log)
    batch = entries(count)
    await append(log, batch, head)

    records = await everything(log)

    assert [record.sequence for record in records] == list(range(1, count + 2))
    assert [Entry(record.subject, record.data) for record in records[1:]] == batch


async def test_a_read_ends_exactly_where_it_was_told(log: EventLog) -> None:
    """Any range, across pages, has exactly the records after `after` up to and including `up_to`."""
    head = await begin_term(log)
    for tag in ("a", "b", "c"):
        head = await append(log, entries(900, tag), head)

    for after, up_to in ((0, 2701), (0, 1), (5, 5), (17, 1203), (2700, 2701), (899, 2001)):
        records = [record.sequence async for page in log.read(after=after, up_to=up_to) for record in page]
        assert records == list(range(after + 1, up_to + 1))


async def test_a_page_is_never_empty(log: EventLog) -> None:
    """Readers may take the last record of each page."""
    await append(log, entries(7), await begin_term(log))

    assert all([page async for page in log.read(after=0, up_to=8)])


async def test_large_records_come_back_whole(log: EventLog) -> None:
    """Records of the largest size are stored and read, several to a batch."""
    batch = [Entry("log.job.big", bytes([number]) * RECORD_BYTES) for number in range(5)]
    await append(log, batch, await begin_term(log))

    assert [record.data for record in await everything(log)][1:] == [entry.data for entry in batch]


async def test_reading_past_the_end_says_where_the_log_ends(log: EventLog) -> None:
    """A log that is shorter than expected is never silently shorter."""
    await append(log, entries(2), await begin_term(log))

    pages = log.read(after=0, up_to=9)

    assert len(await anext(pages)) == 3
    with pytest.raises(LogCorruptError) as caught:
        await anext(pages)
    assert caught.value.position == 4


async def test_a_deposed_leader_is_fenced(store: Store) -> None:
    """After a newer term an older leader cannot append, whatever position it expects, and nothing is stored."""
    old, new = await store.open(), await store.open()
    old_head = await append(old, entries(2), await begin_term(old))
    new_head = await begin_term(new, b"newer term")

    for expected in (old_head.sequence, new_head.sequence):
        with pytest.raises(FencedError):
            await append(old, entries(3, "late"), Head(expected, old_head.term_sequence))

    assert await new.head() == new_head


async def test_a_stale_position_is_refused(log: EventLog) -> None:
    """An append that expects an earlier end than the real one is refused as a whole."""
    head = await begin_term(log)
    await append(log, entries(2), head)

    with pytest.raises(FencedError):
        await append(log, entries(2, "other"), head)

    assert len(await everything(log)) == 3


@pytest.mark.parametrize("behind", [1, 2, 3])
async def test_a_stale_append_never_stores_its_tail(log: EventLog, behind: int) -> None:
    """Also where one of its later records would stand just at the end of the log."""
    head = await append(log, entries(4), await begin_term(log))

    with pytest.raises(FencedError):
        await append(log, entries(6, "stale"), Head(head.sequence - behind, head.term_sequence))

    assert await log.head() == head


async def test_a_position_beyond_the_end_is_corruption(log: EventLog) -> None:
    """When the log is shorter than what was read from it, records have been lost."""
    head = await begin_term(log)

    with pytest.raises(LogCorruptError) as caught:
        await append(log, entries(1), Head(head.sequence + 5, head.term_sequence))

    assert caught.value.position == 2


async def test_a_term_starts_only_after_the_one_it_saw(store: Store) -> None:
    """Of two candidates that saw the same end, one starts its term."""
    first, second = await store.open(), await store.open()

    async def candidate(log: EventLog, name: bytes) -> bool:
        try:
            await log.append([Entry(TERM_SUBJECT, name)], expected_sequence=0, term_sequence=0)
        except FencedError:
            return False
        return True

    won = await asyncio.gather(candidate(first, b"one"), candidate(second, b"two"))

    assert sorted(won) == [False, True]
    assert len(await everything(first)) == 1


async def test_an_append_that_is_already_stored_succeeds(log: EventLog) -> None:
    """The very same call twice stores once: a writer may repeat what it could not settle."""
    head = await begin_term(log)
    await append(log, entries(4), head)
    await append(log, entries(4), head)

    assert len(await everything(log)) == 5


async def test_another_handle_sees_the_same_log(store: Store) -> None:
    """A coordinator that starts anew finds what the one before it wrote."""
    log = await store.open()
    await append(log, entries(5), await begin_term(log))

    assert await everything(await store.open()) == await everything(log)


async def test_one_append_at_a_time(log: EventLog) -> None:
    """A second append in flight is a defect of the caller and says so."""
    head = await begin_term(log)
    first = asyncio.ensure_future(append(log, entries(1, "first"), head))
    await asyncio.sleep(0)

    with pytest.raises(RuntimeError):
        await append(log, entries(1, "second"), head)

    await first


@pytest.mark.parametrize(
    "batch",
    [
        [],
        entries(APPEND_BATCH_RECORDS + 1),
        [Entry("log.job.x", b"")],
        [Entry("log.job.x", b"x" * (RECORD_BYTES + 1))],
        [Entry("log.job.x", b"x" * RECORD_BYTES)] * 10,
        [Entry("work.node-1", b"x")],
        [Entry("log.job.x", b"x"), Entry(TERM_SUBJECT, b"term")],
    ],
    ids=["none", "too many", "empty", "too large", "too much", "foreign subject", "term among others"],
)
async def test_an_append_that_breaks_the_contract_is_refused(log: EventLog, batch: list[Entry]) -> None:
    """Such an append is a defect of the caller: ValueError, nothing stored."""
    with pytest.raises(ValueError, match=r"."):
        await append(log, batch, Head(0, 0))

    assert await log.head() == Head(0, 0)


async def test_a_closed_log_answers_nothing(log: EventLog) -> None:
    """After close every call fails as unavailable instead of hanging."""
    head = await begin_term(log)
    await log.close()

    with pytest.raises(BrokerUnavailableError):
        await log.head()
    with pytest.raises(BrokerUnavailableError):
        await append(log, entries(1), head)
    with pytest.raises(BrokerUnavailableError):
        _ = [page async for page in log.read(after=0, up_to=1)]


async def test_the_first_record_of_a_subject_is_found(log: EventLog) -> None:
    """However many follow it, and 0 where nothing is stored under exactly that subject."""
    head = await begin_term(log)
    await append(log, entries(7), head)

    assert [await log.find_first(f"log.job.j{number}") for number in range(3)] == [2, 3, 4]
    assert await log.find_first(TERM_SUBJECT) == 1
    assert await log.find_first("log.job.j") == 0
    assert await log.find_first("log.job") == 0

"""What the JetStream log does when its server, the network or an operator misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from hivefold.bus import api
from hivefold.bus.connection import connect
from hivefold.bus.link import Link
from hivefold.errors import (
    AppendUnresolvedError,
    BrokerUnavailableError,
    ConfigError,
    LogCorruptError,
    LogFullError,
)
from hivefold.log.jetstream import JetStreamEventLog, open_log
from hivefold.log.naming import STREAM
from hivefold.log.port import TERM_SUBJECT, Entry, Head, Stored
from hivefold.log.reading import PageReader
from hivefold.log.segments import Segments
from hivefold.log.stream import LogSettings, wanted_stream
from hivefold.server.embedded import EmbeddedServer, RunningServer
from tests.fixtures.nats import bare_server
from tests.fixtures.proxy import LossyProxy

pytestmark = pytest.mark.integration

IMPATIENT = LogSettings(append_timeout_s=0.3, resolve_timeout_s=20.0)


async def everything(log: JetStreamEventLog) -> list[Stored]:
    head = await log.head()
    return [record async for page in log.read(after=0, up_to=head.sequence) for record in page]


async def begin_term(log: JetStreamEventLog) -> Head:
    await log.append([Entry(TERM_SUBJECT, b"term")], expected_sequence=0, term_sequence=0)
    return Head(1, 1)


async def append(log: JetStreamEventLog, head: Head, *data: bytes) -> Head:
    batch = [Entry("log.job.j", item) for item in data]
    await log.append(batch, expected_sequence=head.sequence, term_sequence=head.term_sequence)
    return Head(head.sequence + len(data), head.term_sequence)


def data_of(records: list[Stored]) -> list[bytes]:
    return [record.data for record in records]


def port_of(server: RunningServer) -> int:
    return int(server.url.rpartition(":")[2])


async def open_through(proxy: LossyProxy, server: RunningServer, settings: LogSettings) -> JetStreamEventLog:
    through = replace(server.core, servers=(f"nats://127.0.0.1:{proxy.port}",))
    return await open_log(await connect(through), settings)


class Lossy:
    """A log behind a proxy that can lose what is sent."""

    def __init__(self, proxy: LossyProxy, log: JetStreamEventLog, head: Head) -> None:
        self.proxy = proxy
        self.log = log
        self.head = head


@pytest_asyncio.fixture
async def lossy(nats_server: RunningServer) -> AsyncIterator[Lossy]:
    async with LossyProxy(port_of(nats_server)) as proxy:
        log = await open_through(proxy, nats_server, IMPATIENT)
        yield Lossy(proxy, log, await begin_term(log))
        await log.close()


async def after(delay_s: float, *acts: Any) -> None:
    await asyncio.sleep(delay_s)
    for act in acts:
        act()


@pytest.mark.parametrize("count", [1, 5, 40], ids=["single", "chain", "batch"])
async def test_an_append_whose_answer_is_lost_succeeds_once(lossy: Lossy, count: int) -> None:
    """The records are looked up instead of sent blindly again: stored exactly once."""
    data = [b"record-%d" % number for number in range(count)]
    lossy.proxy.swallow_answers = True
    healing = asyncio.ensure_future(after(0.5, lossy.proxy.heal, lossy.proxy.cut))

    await append(lossy.log, lossy.head, *data)

    await healing
    assert data_of(await everything(lossy.log)) == [b"term", *data]


@pytest.mark.parametrize("count", [6, 20], ids=["chain", "batch"])
@pytest.mark.parametrize("passing", [0, 500, 1000], ids=["nothing", "part", "more"])
async def test_an_append_cut_off_on_its_way_is_stored_once(lossy: Lossy, count: int, passing: int) -> None:
    """Whatever part of an append reached the server, in the end all of it is stored, once."""
    data = [b"record-%d" % number for number in range(count)]
    lossy.proxy.swallow_requests_after = passing
    healing = asyncio.ensure_future(after(0.1, lossy.proxy.cut, lossy.proxy.heal))

    await append(lossy.log, lossy.head, *data)

    await healing
    assert data_of(await everything(lossy.log)) == [b"term", *data]


async def test_a_connection_that_breaks_again_and_again_loses_nothing(lossy: Lossy) -> None:
    """Appends under constant cuts all succeed, in order, each once."""

    async def cut_for_ever() -> None:
        while True:
            await asyncio.sleep(0.05)
            lossy.proxy.cut()

    cutting = asyncio.ensure_future(cut_for_ever())
    head, data = lossy.head, []
    for number in range(60):
        data.append(b"record-%d" % number)
        head = await eventually_appended(lossy.log, head, data[-1])
    cutting.cancel()

    assert data_of(await everything(lossy.log)) == [b"term", *data]


async def eventually_appended(log: JetStreamEventLog, head: Head, *data: bytes) -> Head:
    """Repeats the same call while the broker is away, as the writer may."""
    while True:
        try:
            return await append(log, head, *data)
        except BrokerUnavailableError:
            await asyncio.sleep(0.02)


async def test_what_cannot_be_found_out_is_said(nats_server: RunningServer) -> None:
    """With nobody to ask, an append ends as unresolved within its bound: neither success nor failure is claimed."""
    async with LossyProxy(port_of(nats_server)) as proxy:
        log = await open_through(proxy, nats_server, replace(IMPATIENT, resolve_timeout_s=0.5))
        head = await begin_term(log)
        proxy.swallow_answers = True
        with pytest.raises(AppendUnresolvedError):
            await append(log, head, b"record")
        await log.close()


class Keeper:
    """Starts the server again whenever it has ended, as `hivefold up` does."""

    def __init__(self, server: RunningServer, directory: Path) -> None:
        self.server = server
        self._directory = directory

    async def keep(self) -> None:
        while True:
            await self.server.wait()
            await self.server.stop()
            self.server = await EmbeddedServer(self._directory, port=port_of(self.server)).start()

    async def kill(self, times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(0.15)
            pid = self.server.pid
            os.kill(pid, signal.SIGKILL)
            while self.server.pid == pid:
                await asyncio.sleep(0.01)


async def test_acknowledged_records_survive_a_killed_server(nats_server: RunningServer, tmp_path: Path) -> None:
    """kill -9 in mid append, again and again: what was acknowledged is there, what was in flight is there once."""
    keeper = Keeper(nats_server, tmp_path / "nats")
    keeping = asyncio.ensure_future(keeper.keep())
    killing = asyncio.ensure_future(keeper.kill(5))
    log = await open_log(await connect(nats_server.core), IMPATIENT)
    head, data = await begin_term(log), []
    while not killing.done():
        batch = [b"record-%d-%d" % (head.sequence, part) for part in range(1 + head.sequence % 4)]
        head = await eventually_appended(log, head, *batch)
        data += batch

    await killing
    assert data_of(await everything(log)) == [b"term", *data]
    keeping.cancel()
    await log.close()
    await keeper.server.stop()


async def test_a_stalled_server_stores_once(nats_server: RunningServer) -> None:
    """An append that times out while the server is stopped, and then goes through, is found, not repeated."""
    log = await open_log(await connect(nats_server.core), IMPATIENT)
    head = await begin_term(log)
    os.kill(nats_server.pid, signal.SIGSTOP)
    waking = asyncio.ensure_future(after(1.0, lambda: os.kill(nats_server.pid, signal.SIGCONT)))

    await append(log, head, b"one", b"two")

    await waking
    assert data_of(await everything(log)) == [b"term", b"one", b"two"]
    await log.close()


async def test_a_full_log_refuses_and_keeps_what_it_has(nats_server: RunningServer) -> None:
    """At its size limit the log takes no more, says so, reads as before, and grows when told to."""
    log = await open_log(await connect(nats_server.core), LogSettings(max_bytes=40_000))
    head = await begin_term(log)
    for number in range(3):
        head = await append(log, head, b"%d" % number * 9000)

    with pytest.raises(LogFullError, match="log_max_bytes"):
        await append(log, head, b"x" * 9000, b"y" * 9000)
    with pytest.raises(LogFullError):
        await append(log, head, b"z" * 20_000)

    assert await log.head() == head
    await log.close()
    larger = await open_log(await connect(nats_server.core), LogSettings(max_bytes=400_000))
    assert len(await everything(larger)) == 4
    await append(larger, head, b"x" * 9000, b"y" * 9000)
    await larger.close()


async def test_a_stream_that_could_lose_records_is_refused(nats_server: RunningServer) -> None:
    """An existing stream with other settings is not used; the error names each setting and its value."""
    link = await connect(nats_server.core)
    dangerous = {"discard": "old", "deny_purge": False, "allow_rollup_hdrs": True, "max_age": 10**12}
    await api.call(link, f"STREAM.CREATE.{STREAM}", {**wanted_stream(LogSettings()), **dangerous})

    with pytest.raises(ConfigError) as caught:
        await open_log(link)

    for name in dangerous:
        assert name in caught.value.message
    await link.close()


async def test_a_server_without_room_for_the_log_is_refused(nats_server: RunningServer) -> None:
    """A log larger than the server's storage says which of the two to change."""
    link = await connect(nats_server.core)

    with pytest.raises(ConfigError, match="log_max_bytes"):
        await open_log(link, LogSettings(max_bytes=1 << 60))

    await link.close()


async def opened_anyway(link: Link) -> JetStreamEventLog:
    """The log without the check of its stream."""
    segments = Segments(link, LogSettings())
    await segments.refresh()
    return JetStreamEventLog(link, LogSettings(), segments, await PageReader.open(link))


async def loose_log(link: Link, records: int, **settings: object) -> JetStreamEventLog:
    """A log on a stream whose records can be deleted, as a broken disk or an operator would."""
    wanted = {**wanted_stream(LogSettings()), "deny_delete": False, **settings}
    await api.call(link, f"STREAM.CREATE.{STREAM}", wanted)
    log = await opened_anyway(link)
    await append(log, await begin_term(log), *(b"record-%d" % number for number in range(2, records + 1)))
    return log


@pytest.mark.parametrize("lost", [1, 2, 500, 1000])
async def test_a_gap_stops_the_reader_at_its_position(nats_server: RunningServer, lost: int) -> None:
    """A missing record anywhere ends the read with its sequence; all before it was handed out, nothing after."""
    log = await loose_log(await connect(nats_server.core), 1000)
    await api.call(log._link, f"STREAM.MSG.DELETE.{STREAM}", {"seq": lost})

    seen: list[int] = []
    with pytest.raises(LogCorruptError) as caught:
        await collect(log, seen, up_to=1000)

    assert caught.value.position == lost
    assert seen == list(range(1, lost))
    await log.close()


async def collect(log: JetStreamEventLog, seen: list[int], up_to: int) -> None:
    async for page in log.read(after=0, up_to=up_to):
        seen += [record.sequence for record in page]


async def test_what_a_replica_does_not_have_the_leader_is_asked_for(nats_server: RunningServer) -> None:
    """Where direct reads bring nothing, as on a replica that lags, the read goes on through the leader."""
    log = await loose_log(await connect(nats_server.core), 30, allow_direct=False)

    assert [record.sequence for record in await everything(log)] == list(range(1, 31))
    await log.close()


async def test_a_read_goes_on_after_a_broken_connection(lossy: Lossy) -> None:
    """Cuts in mid read cost time, not records."""
    head = lossy.head
    for block in range(4):
        head = await append(lossy.log, head, *(b"%d-%d" % (block, number) for number in range(1000)))

    seen = 0
    async for page in lossy.log.read(after=0, up_to=head.sequence):
        seen += len(page)
        lossy.proxy.cut()

    assert seen == 4001


async def test_bit_rot_on_the_disk_never_shortens_the_log_silently(nats_server: RunningServer, tmp_path: Path) -> None:
    """With a flipped bit in the store the log either reads as it was or names the position where it does not."""
    log = await open_log(await connect(nats_server.core))
    data = [b"record-%d" % number for number in range(50)]
    await append(log, await begin_term(log), *data)
    await log.close()
    await nats_server.stop()
    [block] = (tmp_path / "nats" / "store").rglob(f"streams/{STREAM}/msgs/*.blk")
    stored = bytearray(block.read_bytes())
    stored[len(stored) // 2] ^= 1
    block.write_bytes(stored)

    server = await EmbeddedServer(tmp_path / "nats", port=0).start()
    log = await opened_anyway(await connect(server.core))
    seen: list[int] = []
    with contextlib.suppress(LogCorruptError):
        await collect(log, seen, up_to=51)
        assert data_of(await everything(log)) == [b"term", *data]
    assert seen == list(range(1, len(seen) + 1))
    await log.close()
    await server.stop()


async def test_an_account_without_jetstream_is_told_to_enable_it() -> None:
    """A server without JetStream is refused with what to do about it."""
    async with bare_server() as settings:
        link = await connect(settings, wait_s=5.0)
        with pytest.raises(ConfigError, match="-js"):
            await open_log(link)
        await link.close()

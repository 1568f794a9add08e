"""The mirror of the log, and users that may only look."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from hivefold.bus import api
from hivefold.bus.connection import connect
from hivefold.bus.link import Link
from hivefold.bus.streams import prepare_streams
from hivefold.errors import BrokerUnavailableError
from hivefold.log.jetstream import open_log
from hivefold.log.mirror import prepare_mirrors
from hivefold.log.port import Entry
from hivefold.server.embedded import RunningServer
from tests.integration.fleets import running_fleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


async def _messages(link: Link) -> int:
    return int((await api.call(link, "STREAM.INFO.HF_LOG"))["state"]["messages"])


async def _until_mirrored(link: Link, records: int) -> None:
    async with asyncio.timeout(20):
        while await _messages(link) != records:
            await asyncio.sleep(0.05)


async def test_the_mirror_keeps_what_the_log_loses(nats_server: RunningServer) -> None:
    """Whoever holds the account of the log may delete it: the mirror has every record still."""
    core, audit = await connect(nats_server.core), await connect(nats_server.audit)
    log = await open_log(core)
    await log.append([Entry("log.term", b"term")], expected_sequence=0, term_sequence=0)
    await prepare_mirrors(audit)
    await log.append([Entry("log.x", b"%d" % n) for n in range(50)], expected_sequence=1, term_sequence=1)
    await _until_mirrored(audit, 51)
    await api.call(core, "STREAM.DELETE.HF_LOG")
    await prepare_mirrors(audit)
    assert await _messages(audit) == 51
    await audit.close()
    await log.close()


async def test_an_auditor_reads_the_mirror_and_nothing_else(nats_server: RunningServer) -> None:
    """The credential neither changes the mirror nor reaches another account."""
    core, audit = await connect(nats_server.core), await connect(nats_server.audit)
    log = await open_log(core)
    await log.append([Entry("log.term", b"term")], expected_sequence=0, term_sequence=0)
    await prepare_mirrors(audit)
    await _until_mirrored(audit, 1)
    auditor = await connect(nats_server.auditor)
    assert (await api.message_at(auditor, "HF_LOG", {"seq": 1})).data == b"term"
    for call in ("STREAM.DELETE.HF_LOG", "STREAM.UPDATE.HF_LOG", "STREAM.CREATE.MINE", "STREAM.NAMES"):
        with pytest.raises(BrokerUnavailableError):
            await asyncio.wait_for(api.call(auditor, call, {}), 8)
    assert await _messages(audit) == 1
    for link in (auditor, audit):
        await link.close()
    await log.close()


async def test_a_follower_hears_events_and_says_nothing(nats_server: RunningServer) -> None:
    """A user for dashboards: events and telemetry come, what it publishes does not arrive."""
    coordinator, follower = await connect(nats_server.nodes), await connect(nats_server.follower)
    await prepare_streams(coordinator)
    heard: list[bytes] = []
    for subject in ("events.>", "telemetry.>", "heartbeat.>", "work.>", ">"):
        await follower.listen(subject, lambda subject, _reply, _data, _headers: heard.append(subject))
    spoken: list[bytes] = []
    await coordinator.listen("events.job.forged", lambda subject, _reply, _data, _headers: spoken.append(subject))
    await coordinator.flush()
    await follower.flush()
    for subject in ("events.job.j1", "telemetry.n1", "heartbeat.n1", "fleet.pulse"):
        await coordinator.publish(subject, b"x")
    await follower.publish("events.job.forged", b"x")
    for link in (coordinator, follower, coordinator):
        await link.flush()
    assert sorted(heard) == [b"events.job.j1", b"telemetry.n1"]
    assert spoken == []
    for link in (coordinator, follower):
        await link.close()


def test_up_mirrors_its_log(tmp_path: Path) -> None:
    """The store of the account AUDIT holds the log, too."""
    with running_fleet(tmp_path / "fleet", node_count=1) as fleet:
        mirror = fleet.directory / "nats" / "store" / "jetstream" / "AUDIT" / "streams" / "HF_LOG"
        deadline = time.monotonic() + 20
        while not mirror.is_dir():
            assert time.monotonic() < deadline
            time.sleep(0.1)

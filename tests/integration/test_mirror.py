"""The mirror of the log, and users that may only look."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.archiver import Archiver
from coordinator.mirroring import Mirroring
from coordinator.replay import NOTHING, replay
from hivefold.bus import api
from hivefold.bus.connection import connect
from hivefold.bus.link import Link
from hivefold.bus.streams import prepare_streams
from hivefold.clock import ManualClock
from hivefold.errors import BrokerUnavailableError, HivefoldError
from hivefold.log.archive import Archive
from hivefold.log.file import LogFileReader
from hivefold.log.jetstream import JetStreamEventLog, open_log
from hivefold.log.mirror import MirroredLog, Mirrors
from hivefold.log.port import CLOSE_SUBJECT, TERM_SUBJECT, Entry, ReadableLog, Stored
from hivefold.log.segment_restoring import Span, restore_segment
from hivefold.log.segments import Segment
from hivefold.log.stream import LogSettings
from hivefold.server.embedded import RunningServer
from tests.integration.fleets import hivefold, running_fleet
from tests.integration.test_segments import Leader, register

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


SMALL = LogSettings(segment_max_records=8)


async def _mirrored(mirrors: Mirrors, records: int) -> list[Segment]:
    """The mirrors, once they hold so many records."""
    async with asyncio.timeout(20):
        while True:
            found = list(await mirrors.all())
            if sum(each.last - each.first + 1 for each in found) == records:
                return found
            await asyncio.sleep(0.05)


async def _fill(log: JetStreamEventLog, segments: int) -> int:
    """Appends terms of nine records, each a segment of its own; gives the last position."""
    head = await log.head()
    position, term = head.sequence, head.term_sequence
    for _ in range(segments):
        await log.append([Entry(TERM_SUBJECT, b"%d" % position)], expected_sequence=position, term_sequence=term)
        term = position = position + 1
        entries = [Entry("log.x", b"%d" % (position + at)) for at in range(7)]
        entries.append(Entry(CLOSE_SUBJECT, b"%d" % (position + 8)))
        await log.append(entries, expected_sequence=position, term_sequence=term)
        position += len(entries)
    return position


async def _records(log: ReadableLog, last: int) -> list[Stored]:
    return [stored async for page in log.read(after=0, up_to=last) for stored in page]


async def test_the_mirror_keeps_what_the_log_loses(nats_server: RunningServer) -> None:
    """Whoever holds the account of the log may delete a segment: the mirror has every record still."""
    core, audit = await connect(nats_server.core), await connect(nats_server.audit)
    log = await open_log(core, SMALL)
    last = await _fill(log, 2)
    mirrors = Mirrors(audit)
    await Mirroring(log, mirrors).step()
    before = await _mirrored(mirrors, last)
    for stream in ("HF_LOG", "HF_LOG_0002"):
        await api.call(core, f"STREAM.DELETE.{stream}")
    await Mirrors(audit).ensure([1, 2])
    assert await mirrors.all() == before
    assert [(each.number, each.first, each.last) for each in before] == [(1, 1, 9), (2, 10, 18)]
    for link in (core, audit):
        await link.close()


async def test_segments_made_later_are_mirrored_by_whoever_leads(nats_server: RunningServer) -> None:
    """The first leader mirrors what there is; its successor what was closed before it came, and what comes."""
    audit = await connect(nats_server.audit)
    first = await open_log(await connect(nats_server.core), SMALL)
    last = await _fill(first, 1)
    await Mirroring(first, Mirrors(audit)).step()
    await _mirrored(Mirrors(audit), last)
    await _fill(first, 2)
    await first.close()

    second = await open_log(await connect(nats_server.core), SMALL)
    mirroring = Mirroring(second, Mirrors(audit))
    await mirroring.step()
    last = await _fill(second, 2)
    await mirroring.step()
    found = await _mirrored(Mirrors(audit), last)

    assert [each.number for each in found] == [1, 2, 3, 4, 5]
    assert [await mirroring.has(each) for each in second.segments if each.sealed] == [True] * 4
    auditor = await connect(nats_server.auditor)
    mirror = await MirroredLog.open(auditor)
    assert await _records(mirror, last) == await _records(second, last)
    for link in (audit, auditor):
        await link.close()
    await second.close()


async def test_a_segment_stays_on_the_broker_until_it_is_mirrored(nats_server: RunningServer, tmp_path: Path) -> None:
    """Archived and beyond those that are kept, but not in the mirror yet: its stream is not removed."""
    audit = await connect(nats_server.audit)
    log = await open_log(await connect(nats_server.core), replace(SMALL, archive=tmp_path))
    leader = Leader(log, NOTHING)
    await register(leader)
    await leader.lead("c1", range(30))
    mirrors = Mirrors(audit)
    mirroring = Mirroring(log, mirrors)
    archiver = Archiver(log, Archive(tmp_path), ManualClock(), keep=1, may_remove=mirroring.has)

    await archiver.step()
    assert log.segments[0].number == 1
    await mirroring.step()
    await _mirrored(mirrors, (await log.head()).sequence)
    await archiver.step()

    assert [each.sealed for each in log.segments] == [True, False]
    assert (await mirrors.all())[0].number == 1
    await audit.close()
    await log.close()


@pytest.mark.parametrize("lost", [1, 2, 4])
async def test_a_lost_segment_is_put_back_from_the_mirror(nats_server: RunningServer, lost: int) -> None:
    """Any of them, the last too: the same records at the same positions, and the log goes on, mirrored as before."""
    core, audit = await connect(nats_server.core), await connect(nats_server.auditor)
    log = await open_log(await connect(nats_server.core), SMALL)
    leader = Leader(log, NOTHING)
    await register(leader)
    await leader.lead("c1", range(24))
    last = (await log.head()).sequence
    mirrors = Mirrors(await connect(nats_server.audit))
    await Mirroring(log, mirrors).step()
    await _mirrored(mirrors, last)
    before = await _records(log, last)
    assert log.segments[-1].number == 4
    await api.call(core, f"STREAM.DELETE.{log.segments[lost - 1].stream}")
    mirror = await MirroredLog.open(audit)
    held = next(each for each in mirror.segments if each.number == lost)

    for _ in range(2):  # repeating it changes nothing
        await restore_segment(core, SMALL, mirror, Span(lost, held.first, held.last), lambda _done, _of: None)

    again = await open_log(await connect(nats_server.core), SMALL)
    assert await _records(again, last) == before
    assert [each.sealed for each in again.segments] == [True, True, True, False]
    successor = Leader(again, await replay(again, up_to=last))
    await successor.lead("c2", range(24, 40))
    await Mirroring(again, mirrors).step()
    await _mirrored(mirrors, (await again.head()).sequence)
    for closing in (log, again):
        await closing.close()
    for link in (core, audit):
        await link.close()


async def test_a_copy_of_another_log_is_not_put_back(nats_server: RunningServer, tmp_path: Path) -> None:
    """A segment that does not fit to those beside it: nothing on the broker is touched."""
    core = await connect(nats_server.core)
    log = await open_log(await connect(nats_server.core), replace(SMALL, archive=tmp_path))
    leader = Leader(log, NOTHING)
    await register(leader)
    await leader.lead("c1", range(24))
    await Archiver(log, Archive(tmp_path), ManualClock()).step()
    files = Archive(tmp_path).files()
    before = await log.look_at_segments()

    for number in (1, 3):
        held = Span(number, files[number - 1].first, files[number - 1].last)
        with LogFileReader(files[1].path) as other, pytest.raises(HivefoldError):
            await restore_segment(core, SMALL, other, held, lambda _done, _of: None)

    assert await log.look_at_segments() == before
    with LogFileReader(files[1].path) as right:
        held = Span(2, files[1].first, files[1].last)
        await restore_segment(core, SMALL, right, held, lambda _done, _of: None)
    assert [(each.first, each.last) for each in await log.look_at_segments()] == [(e.first, e.last) for e in before]
    await core.close()
    await log.close()


async def test_an_auditor_reads_the_mirror_and_nothing_else(nats_server: RunningServer) -> None:
    """The credential neither changes the mirror nor reaches another account; nor does that which makes mirrors."""
    core, audit = await connect(nats_server.core), await connect(nats_server.audit)
    log = await open_log(core)
    await log.append([Entry("log.term", b"term")], expected_sequence=0, term_sequence=0)
    await Mirrors(audit).ensure([1])
    await _mirrored(Mirrors(audit), 1)
    auditor = await connect(nats_server.auditor)
    assert (await api.message_at(auditor, "HF_LOG", {"seq": 1})).data == b"term"
    forbidden = ("STREAM.DELETE.HF_LOG", "STREAM.UPDATE.HF_LOG", "STREAM.PURGE.HF_LOG", "CONSUMER.CREATE.HF_LOG")
    keys = {"name": "STOLEN", "mirror": {"name": "HF_KEYS", "external": {"api": "CORE.API", "deliver": "audit.x"}}}
    calls: list[tuple[Link, str, dict[str, object]]] = [
        (link, call, {}) for link in (auditor, audit) for call in forbidden
    ]
    for link, call, body in [*calls, (auditor, "STREAM.CREATE.MINE", {})]:
        with pytest.raises(BrokerUnavailableError):
            await api.call(link, call, body, timeout_s=0.5)
    with contextlib.suppress(HivefoldError):
        await api.call(audit, "STREAM.CREATE.STOLEN", keys, timeout_s=5)
        await asyncio.sleep(1)
        assert (await api.call(audit, "STREAM.INFO.STOLEN"))["state"]["messages"] == 0
    await _mirrored(Mirrors(audit), 1)
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
    """The mirror is verified with an auditor's credential, to the same end as the log; its store is all that it takes
    to put the log back."""
    directory = tmp_path / "fleet"
    with running_fleet(directory, node_count=1) as fleet:
        assert fleet.run("job", "submit", "probe", "--tasks", "5", "--wait").returncode == 0
        time.sleep(2.5)
        live, mirrored = fleet.json("log", "verify"), fleet.json("log", "verify", "--mirror")
        assert mirrored == live
        assert int(live["checkpointCount"]) >= 2
        (segment,) = fleet.json("log", "segments")["segments"]
        assert (segment["number"], segment["onBroker"], segment["sealed"]) == ("1", True, False)
        assert segment["mirroredSequence"] == segment["lastSequence"] == live["sequence"]
        assert "broker, mirror" in fleet.run("log", "segments").stdout
        assert fleet.stop() == 0
    shutil.rmtree(directory / "nats" / "store" / "jetstream" / "CORE" / "streams" / "HF_LOG")

    restored = hivefold("log", "restore", "--mirror", "--dir", directory)
    assert restored.returncode == 0, restored.stderr

    with running_fleet(directory, node_count=1) as fleet:
        assert fleet.run("job", "submit", "probe", "--tasks", "5", "--wait").returncode == 0
        assert all(not node["refusal"] for node in fleet.json("node", "ls")["nodes"])
        time.sleep(2.5)
        assert fleet.json("log", "verify", "--mirror") == fleet.json("log", "verify")


def test_a_rotten_segment_is_put_back_from_the_mirror(tmp_path: Path) -> None:
    """A bit of the log turned: the fleet does not start until the segment was put back, and then it goes on."""
    directory = tmp_path / "fleet"
    with running_fleet(directory, node_count=1) as fleet:
        assert fleet.run("job", "submit", "probe", "--tasks", "5", "--wait").returncode == 0
        before = fleet.json("log", "replay")
        time.sleep(1)
        assert fleet.stop() == 0
    (block,) = directory.rglob("CORE/streams/HF_LOG/msgs/1.blk")
    content = bytearray(block.read_bytes())
    content[len(content) // 2] ^= 1
    block.write_bytes(content)

    restored = hivefold("log", "restore", "--mirror", "--segment", "1", "--dir", directory)
    assert restored.returncode == 0, restored.stderr

    with running_fleet(directory, node_count=1) as fleet:
        at = fleet.json("log", "replay", "--at", before["sequence"])
        assert at["stateDigest"] == before["stateDigest"]
        assert fleet.run("job", "submit", "probe", "--tasks", "5", "--wait").returncode == 0

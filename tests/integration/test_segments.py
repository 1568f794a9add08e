"""A fleet whose log rolls every few records: nothing is lost at a roll, and what is archived still replays."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from coordinator.archiver import Archiver
from coordinator.core.commands import RegisterModel
from coordinator.replay import NOTHING, Replayed, replay
from coordinator.writer import Writer
from hivefold.bus.connection import connect
from hivefold.clock import ManualClock
from hivefold.entropy import SystemEntropy
from hivefold.errors import HivefoldError, LogCorruptError, SegmentMissingError
from hivefold.log.archive import Archive
from hivefold.log.file import LogFileReader
from hivefold.log.jetstream import JetStreamEventLog, open_log
from hivefold.log.stream import LogSettings
from hivefold.server.embedded import RunningServer
from tests import samples

pytestmark = pytest.mark.integration


async def opened(server: RunningServer, archive: Path) -> JetStreamEventLog:
    return await open_log(await connect(server.core), LogSettings(segment_max_records=8, archive=archive))


async def replay_all(log: JetStreamEventLog) -> Replayed:
    head = await log.head()
    return await replay(log, up_to=head.sequence) if head.sequence else NOTHING


class Leader:
    """A writer over the log, without a bus: what it decides is recorded and nothing is sent."""

    def __init__(self, log: JetStreamEventLog, start: Replayed) -> None:
        self.log = log
        self.writer = Writer(log, ManualClock(), SystemEntropy(), start)

    async def lead(self, name: str, jobs: range) -> None:
        """Starts a term and submits a job at a time."""
        await self.writer.begin(name, "test")
        running = asyncio.ensure_future(self.writer.run())
        for number in jobs:
            await self.writer.execute(samples.submit(f"job-{number}", samples.infer(10)))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def digest_of(log: JetStreamEventLog) -> str:
    return str((await replay_all(log)).digest())


async def test_a_log_rolls_under_its_leaders_and_replays_from_its_archive(
    nats_server: RunningServer, tmp_path: Path
) -> None:
    """Several rolls over two terms, archived, taken from the broker: whoever reads it finds the same state."""
    directory = tmp_path / "archive"
    log = await opened(nats_server, directory)
    first = Leader(log, await replay_all(log))
    await register(first)
    await first.lead("c1", range(20))
    second_log = await opened(nats_server, directory)
    second = Leader(second_log, await replay_all(second_log))
    await second.lead("c2", range(20, 40))
    live = str(Replayed(second.writer.state, second.writer.head_hash).digest())
    assert await digest_of(log) == live

    archiver = Archiver(second_log, Archive(directory), ManualClock(), keep=1)
    await archiver.step()
    await archiver.step()

    sealed = Archive(directory).files()
    assert len(sealed) >= 4
    assert [segment.sealed for segment in second_log.segments] == [True, False]
    assert all(stat.S_IMODE(file.path.stat().st_mode) == 0o600 for file in sealed)
    assert [file.first for file in sealed] == [1, *(file.last + 1 for file in sealed[:-1])]
    fresh = await opened(nats_server, directory)
    for handle in (log, second_log, fresh):
        assert await digest_of(handle) == live
    assert await fresh.find_first("log.job.job-3") == await log.find_first("log.job.job-3") > 0
    with LogFileReader(sealed[0].path) as reader:
        assert (await replay(reader, up_to=sealed[0].last)).state.sequence == sealed[0].last

    third = Leader(fresh, await replay_all(fresh))
    await third.lead("c3", range(40, 50))
    assert third.writer.state.term == 4
    sealed[1].path.unlink()
    with pytest.raises(SegmentMissingError, match="bring its file") as caught:
        await digest_of(fresh)
    assert caught.value.position == sealed[1].first
    for handle in (log, second_log, fresh):
        await handle.close()


async def test_a_damaged_archive_never_costs_a_segment(nats_server: RunningServer, tmp_path: Path) -> None:
    """A file that does not read back as the segment is said, and its stream stays on the broker."""
    log = await opened(nats_server, tmp_path)
    leader = Leader(log, await replay_all(log))
    await register(leader)
    await leader.lead("c1", range(20))
    await Archiver(log, Archive(tmp_path), ManualClock()).step()
    damaged = Archive(tmp_path).files()[0].path
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    before = log.segments

    with pytest.raises(HivefoldError):
        await Archiver(log, Archive(tmp_path), ManualClock(), keep=1).step()

    assert log.segments == before
    await log.close()


async def test_a_damaged_archive_holds_up_no_other_segment(nats_server: RunningServer, tmp_path: Path) -> None:
    """Those behind it are archived all the same; the damaged one is read again only once it was changed."""
    log = await opened(nats_server, tmp_path)
    leader = Leader(log, await replay_all(log))
    await register(leader)
    await leader.lead("c1", range(20))
    first, *others = [segment for segment in log.segments if segment.sealed]
    damaged = Archive(tmp_path).path_of(first.first, first.last)
    damaged.write_bytes(b"no log file")
    archiver = Archiver(log, Archive(tmp_path), ManualClock(), keep=1)

    with pytest.raises(LogCorruptError, match=f"{damaged.name} is damaged.* move it away"):
        await archiver.step()
    await archiver.step()

    assert others
    assert archiver.verified == {segment.first for segment in others}
    assert log.segments[0] == first
    damaged.unlink()
    await archiver.step()
    assert first.first in archiver.verified
    assert log.segments[0] != first
    await log.close()


async def register(leader: Leader) -> None:
    """A term of its own, so that the model is there for the jobs."""
    await leader.writer.begin("c0", "test")
    await leader.writer.record(RegisterModel(samples.model()))

"""A node believes a coordinator whose log extends what it saw, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from hivefold.bus.memory import MemoryBroker
from hivefold.clock import ManualClock
from hivefold.errors import ConfigError
from hivefold.limits import WITNESS_PATIENCE_MS
from hivefold.proof.extension import WITNESS_FILE, read_proven
from hivefold.v1 import work_pb2
from hivefold.v1.checkpoint_pb2 import SignedCheckpoint
from node.witness import Witness
from tests.fixtures.node import probes, running
from tests.fixtures.signed import SignedLog
from tests.unit.coordinator.fleet import on_virtual_time


class Watched:
    """A witness, its broker and its clock."""

    def __init__(self, folder: Path) -> None:
        self.broker = MemoryBroker()
        self.clock = ManualClock()
        self.path = folder / WITNESS_FILE
        self.witness = Witness(self.path, self.broker.connect().checkpoints(), self.clock)

    async def store(self, signed: SignedCheckpoint) -> None:
        """Keeps a checkpoint on the stream."""
        await self.broker.connect().checkpoints().store(signed.SerializeToString(), after=len(self.broker.checkpoints))

    def hears(self, log: SignedLog, checkpoint: SignedCheckpoint | None = None) -> bool:
        """A pulse of the log's coordinator, with its last checkpoint."""
        return self.witness.believes(
            work_pb2.Pulse(term=log.term, sequence=len(log.leaves), checkpoint=checkpoint or log.checkpoint())
        )

    async def until_kept(self, size: int) -> None:
        """Waits until the file says so."""
        async with asyncio.timeout(5):
            while (kept := read_proven(self.path)) is None or kept.checkpoint.size != size or not self.witness._kept:
                await asyncio.sleep(0.001)


@asynccontextmanager
async def watching(folder: Path) -> AsyncIterator[Watched]:
    watched = Watched(folder)
    running_witness = asyncio.create_task(watched.witness.run())
    try:
        yield watched
    finally:
        running_witness.cancel()
        await asyncio.gather(running_witness, return_exceptions=True)


def _grown(records: int) -> SignedLog:
    log = SignedLog()
    log.grow(records)
    return log


async def test_a_log_that_grows_is_believed_and_kept(tmp_path: Path) -> None:
    """Over terms, and by the next boot of the node."""
    log = _grown(4)
    async with watching(tmp_path) as watched:
        for term in (1, 2, 3):
            log.term = term
            assert watched.hears(log)
            assert watched.witness.proves(term)
            assert not watched.witness.proves(term + 1)
            log.grow(3)
        await watched.until_kept(11)
    again = Watched(tmp_path)
    assert again.hears(log, None)
    assert again.witness.proves(3)


@on_virtual_time
async def test_a_proof_that_comes_in_the_moment_in_which_patience_ends_counts() -> None:
    """As for a process that stood still: its timers and all that it was sent are due at once."""
    with TemporaryDirectory() as folder:
        watched, log = Watched(Path(folder)), _grown(4)
        assert watched.hears(log)
        log.term = 2
        log.grow(1)
        waiting = asyncio.create_task(watched.witness.until_proven(2, 10))
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        loop.call_at(loop.time() + 10, watched.hears, log)

        assert await waiting
        assert loop.time() == 10
        assert not await watched.witness.until_proven(3, 10)


async def test_a_log_that_was_cut_or_rewritten_is_refused_over_a_restart(tmp_path: Path) -> None:
    """The restored copy, whatever is appended to it, and the reason names what is wrong."""
    log = _grown(9)
    async with watching(tmp_path) as watched:
        assert watched.hears(log)
        await watched.until_kept(10)
    restored = _grown(3)
    witness = Watched(tmp_path)
    assert not witness.hears(restored)
    assert "was cut: it has 4 records" in witness.witness.refusal
    assert not witness.witness.proves(1)
    forked = _grown(3)
    forked.checkpoint()
    forked.name, forked.term = "forked", 2
    forked.grow(6)
    forked.checkpoint()
    forked.grow(1)
    assert not witness.hears(forked)
    assert not witness.witness.proves(2)


async def test_a_fork_of_the_same_size_is_refused(tmp_path: Path) -> None:
    """One record is another."""
    watched = Watched(tmp_path)
    assert watched.hears(_grown(5))
    forked = _grown(5)
    forked.leaves[2] = bytes(32)
    assert not watched.hears(forked)
    assert "rewritten" in watched.witness.refusal


async def test_missed_checkpoints_are_read_from_the_stream(tmp_path: Path) -> None:
    """A node that was away for hundreds of checkpoints follows them, and believes the last."""
    log = _grown(2)
    async with watching(tmp_path) as watched:
        seen = latest = log.checkpoint()
        await watched.store(seen)
        assert watched.hears(log, seen)
        for _ in range(200):
            log.grow(2)
            latest = log.checkpoint()
            await watched.store(latest)
        assert not watched.hears(log, latest)
        await watched.until_kept(403)
        assert watched.hears(log, latest)


async def test_a_gap_that_cannot_be_filled_is_refused(tmp_path: Path) -> None:
    """The checkpoints between made room, or never were: the node says so."""
    log = _grown(2)
    async with watching(tmp_path) as watched:
        assert watched.hears(log)
        log.grow(2)
        log.checkpoint()
        log.grow(2)
        latest = log.checkpoint()
        await watched.store(latest)
        assert not watched.hears(log, latest)
        async with asyncio.timeout(5):
            while not watched.witness.refusal:
                await asyncio.sleep(0.001)
        assert "do not lead there from record 3" in watched.witness.refusal


async def test_a_coordinator_that_shows_nothing_is_refused_by_a_node_that_has_seen_a_checkpoint(tmp_path: Path) -> None:
    """After a while: it may be a late word of one that was deposed."""
    watched = Watched(tmp_path)
    unsigned = work_pb2.Pulse(term=9)
    assert watched.witness.believes(unsigned), "nothing was seen yet"
    assert watched.witness.proves(9)
    assert watched.hears(_grown(3))
    assert not watched.witness.believes(unsigned)
    assert not watched.witness.refusal
    assert not watched.witness.proves(9)
    watched.clock.advance_ms(WITNESS_PATIENCE_MS + 1)
    assert not watched.witness.believes(unsigned)
    assert "no signed checkpoint" in watched.witness.refusal


async def test_the_last_words_of_a_deposed_coordinator_are_passed_over(tmp_path: Path) -> None:
    """They do not shake the belief in its successor; when only they are heard, they do."""
    log = _grown(3)
    watched = Watched(tmp_path)
    old = log.checkpoint()
    log.grow(2)
    log.term = 2
    assert watched.hears(log)
    late = work_pb2.Pulse(term=1, checkpoint=old)
    assert not watched.witness.believes(late)
    assert watched.witness.proves(2)
    watched.clock.advance_ms(WITNESS_PATIENCE_MS + 1)
    assert not watched.witness.believes(late)
    assert "was cut" in watched.witness.refusal


async def test_a_refusal_ends_when_the_log_is_back(tmp_path: Path) -> None:
    """The operator put the right one in place."""
    log = _grown(5)
    watched = Watched(tmp_path)
    assert watched.hears(log)
    assert not watched.hears(_grown(1))
    log.grow(1)
    assert watched.hears(log)
    assert watched.witness.proves(1)


async def test_the_operator_may_tell_a_node_to_trust_anew(tmp_path: Path) -> None:
    """Without the file the next checkpoint is the first one."""
    async with watching(tmp_path) as watched:
        assert watched.hears(_grown(5))
        await watched.until_kept(6)
        other = SignedLog("other", seed=7)
        assert not watched.hears(other)
        watched.path.unlink()
        assert not watched.hears(other)
        assert watched.hears(other)
        assert watched.witness.proves(1)


def test_a_damaged_file_is_not_taken_for_none(tmp_path: Path) -> None:
    """A node does not forget what it saw because a byte flipped."""
    (tmp_path / WITNESS_FILE).write_bytes(b"\xff damaged")
    with pytest.raises(ConfigError, match="trust the coordinator anew"):
        Watched(tmp_path)


async def test_work_waits_for_the_proof_of_its_term(tmp_path: Path) -> None:
    """Work of a new term is not begun before the new leader has shown that its log goes on from what was seen."""
    log = _grown(3)
    async with running(tmp_path) as rig:
        await rig.until(lambda: bool(rig.beats))
        await rig.signal("fleet.pulse", work_pb2.Pulse(term=1, checkpoint=log.checkpoint()))
        await rig.send(probes(1, term=2))
        await asyncio.sleep(0.01)
        assert not rig.outcomes()
        log.grow(1)
        log.term = 2
        await rig.signal("fleet.pulse", work_pb2.Pulse(term=2, checkpoint=log.checkpoint()))
        assert len(await rig.outcome_count(1)) == 1


async def test_a_node_that_refuses_says_so(tmp_path: Path) -> None:
    """In its heartbeat, in its description and in its health; it takes no work."""
    log = _grown(3)
    async with running(tmp_path) as rig:
        await rig.until(lambda: bool(rig.beats))
        await rig.signal("fleet.pulse", work_pb2.Pulse(term=1, checkpoint=log.checkpoint()))
        assert rig.serving()
        await rig.signal("fleet.pulse", work_pb2.Pulse(term=1, checkpoint=SignedLog().checkpoint()))
        assert not rig.serving()
        assert "was cut" in rig.agent.describe().refusal
        await rig.agent._beat()
        assert "was cut" in rig.beats[-1].refusal

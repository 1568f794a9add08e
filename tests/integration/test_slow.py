"""Coordinators that are slow, not dead: a leader stopped for half a minute, a standby that runs by fits and starts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Final

import pytest

from coordinator.replay import Replayer
from hivefold.client import Fleet, JobOptions, connect
from hivefold.errors import UnavailableError
from hivefold.log.port import Stored
from hivefold.v1 import job_pb2
from tests.integration.fleets import running_fleet
from tests.integration.test_group import addresses, eventually, heads, leader_of, signal_to

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

_STOPPED_S: Final = 30.0
_BURST_S: Final = (0.8, 0.15)
"""How long the slow one stands still, and how long it runs in between."""


async def test_neither_a_stopped_leader_nor_a_slow_standby_does_harm(tmp_path: Path) -> None:
    """SIGSTOP of the leader for 30 s: another leads; the old one appends nothing afterwards, and follows.

    Meanwhile the third coordinator runs 150 ms of each second: all work is done without it, every state that it
    shows is the one at its position, it catches up, and leads when it is asked to.
    """
    with running_fleet(tmp_path / "hf", "--coordinators", "3", node_count=1) as fleet:
        first = await leader_of(fleet)
        began = asyncio.get_running_loop().time()
        signal_to(fleet, first, signal.SIGSTOP)
        second = await leader_of(fleet, other_than=first)
        slow = next(name for name in addresses(fleet) if name not in {first, second})
        async with connect(addresses(fleet)[second]) as leader, connect(addresses(fleet)[slow]) as follower:
            shown: dict[int, str] = {}
            pids = fleet.endpoints["pids"]
            async with _by_fits_and_starts(pids[slow]), _noting(follower, shown):
                jobs = 0
                while asyncio.get_running_loop().time() < began + _STOPPED_S:
                    jobs += 1
                    job = await leader.jobs.submit_probe(20, options=JobOptions(request_id=f"meanwhile-{jobs}"))
                    assert (await leader.jobs.wait(job)).state == job_pb2.JOB_STATE_SUCCEEDED
            signal_to(fleet, first, signal.SIGCONT)

            async def all_follow() -> bool:
                found = await heads(fleet)
                ends = {(head.term, head.sequence) for head in found.values()}
                return len(found) == 3 and ends == {(2, (await leader.log.head()).sequence)}

            await eventually(all_follow)
            assert await leader_of(fleet) == second
            assert shown, "the slow standby never answered"
            end = await leader.log.head(with_state_digest=True)
            assert await _wrong(leader, {**shown, end.sequence: end.state_digest}) == []

            signal_to(fleet, first, signal.SIGSTOP)
            try:
                await leader.log.hand_over(term=2)
                assert await leader_of(fleet, other_than=second) == slow
            finally:
                signal_to(fleet, first, signal.SIGCONT)
            last = await follower.jobs.submit_probe(20)
            assert (await follower.jobs.wait(last)).state == job_pb2.JOB_STATE_SUCCEEDED
            assert fleet.endpoints["pids"] == pids, "a process died of it"


@contextlib.asynccontextmanager
async def _by_fits_and_starts(pid: int) -> AsyncIterator[None]:
    """Within, the process stands still most of the time."""

    async def halt() -> None:
        stopped_s, runs_s = _BURST_S
        while True:
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(stopped_s)
            finally:
                os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(runs_s)

    async with _beside(halt()):
        yield


@contextlib.asynccontextmanager
async def _noting(follower: Fleet, shown: dict[int, str]) -> AsyncIterator[None]:
    """Within, what the follower shows is noted: the digest of its state by its position."""

    async def look() -> None:
        while True:
            with contextlib.suppress(UnavailableError):
                head = await follower.log.head(with_state_digest=True)
                assert shown.setdefault(head.sequence, head.state_digest) == head.state_digest
            await asyncio.sleep(0.05)

    async with _beside(look()):
        yield


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Within, `work` is done; afterwards it has done no harm."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _wrong(leader: Fleet, shown: dict[int, str]) -> list[int]:
    """The positions at which another state was shown than the log gives."""
    replayer, wrong = Replayer(), []
    async for record in leader.log.read(up_to=max(shown)):
        replayer.step(Stored(record.sequence, record.subject, record.data))
        digest = shown.get(record.sequence)
        if digest is not None and digest != replayer.result().digest():
            wrong.append(record.sequence)
    return wrong

"""Erasing: keys go after the record, whatever comes between, and nobody reads what they sealed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from coordinator.batch import Accepted
from coordinator.core import commands as cmd
from coordinator.core.erased import owed_erasures
from coordinator.core.model import JobSpec, ProbeSpec, Rejected
from coordinator.job_keys import JobKeys
from coordinator.lead import Ends, LeadSettings, take_lead
from coordinator.presence import PresenceSettings
from coordinator.writer import Writer
from hivefold import limits
from hivefold.blobs.content import key_of, upload_bytes
from hivefold.blobs.keys import MemoryKeys
from hivefold.blobs.memory import MemoryChunks
from hivefold.blobs.sealing import DataKey, job_key_id
from hivefold.bus.memory import MemoryBroker
from hivefold.clock import SystemClock
from hivefold.entropy import SeededEntropy
from hivefold.errors import BrokerUnavailableError, ConflictError, DataRefusedError, NotFoundError, Reason
from hivefold.ids import Digest, JobId, RequestId
from hivefold.log.memory import MemoryEventLog
from tests import samples
from tests.unit.coordinator.fleet import until
from tests.unit.coordinator.serving import serving


class StubbornKeys(MemoryKeys):
    """Fails to shred as often as told: any key, or `only` one."""

    def __init__(self, failures: int, only: str = "") -> None:
        super().__init__(SeededEntropy(1))
        self.failures = failures
        self.only = only

    async def shred(self, key_id: str) -> None:
        if self.failures and self.only in ("", key_id):
            self.failures -= 1
            raise BrokerUnavailableError("not now; try again")
        await super().shred(key_id)


async def _erased_log(*jobs: str) -> MemoryEventLog:
    """A log that says that jobs were erased, left by a coordinator whose store was away."""
    log = MemoryEventLog()
    async with _leading(log, StubbornKeys(failures=sys.maxsize)) as writer:
        for name in jobs:
            assert not isinstance(await _erase(writer, name), Rejected)
    return log


async def _erase(writer: Writer, name: str) -> Accepted | Rejected:
    """Has the erasing of a job of its own recorded."""
    await writer.execute(cmd.SubmitJob(JobId(name), RequestId(name), JobSpec(ProbeSpec(1))))
    await writer.execute(cmd.CancelJob(JobId(name)))
    return await writer.execute(cmd.EraseJob(JobId(name), (job_key_id(name),)))


@asynccontextmanager
async def _leading(log: MemoryEventLog, keys: MemoryKeys) -> AsyncIterator[Writer]:
    """A term whose parts run."""
    connection = MemoryBroker().connect()
    job_keys = JobKeys(keys, MemoryChunks())
    ends = Ends(log, connection.signals(), connection.work_sender(), connection.result_receiver(), job_keys)
    settings = LeadSettings("test", "0", PresenceSettings("127.0.0.1:1"))
    lead = await take_lead(ends, SystemClock(), SeededEntropy(3), settings)
    tasks = [asyncio.create_task(part) for part in lead.parts()]
    try:
        yield lead.writer
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_start_shreds_what_the_log_calls_erased(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coordinator that died between record and shredding leaves it to the next, which does not give up."""
    monkeypatch.setattr("hivefold.limits.RESEND_DELAY_S", 0.0)
    log = await _erased_log("j-1", "j-2")
    keys = StubbornKeys(failures=3)
    for name in ("j-1", "j-2", "j-3"):
        await keys.obtain(job_key_id(name))
    async with _leading(log, keys):
        await until(lambda: len(keys.secrets) == 1)
    assert set(keys.secrets) == {job_key_id("j-3")}


async def test_no_erasure_is_lost_however_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store is away as many are taken as can be owed, and the rest refused; leaders change; all keys go.

    What was removed is recorded, so that the next leader owes nothing.
    """
    monkeypatch.setattr("hivefold.limits.RESEND_DELAY_S", 0.01)
    log, keys = MemoryEventLog(), StubbornKeys(failures=sys.maxsize)
    names = [f"j-{number}" for number in range(limits.ERASURES_KEPT + 50)]
    for name in [*names, "j-stays"]:
        await keys.obtain(job_key_id(name))
    async with _leading(log, keys) as writer:
        answers = [await _erase(writer, name) for name in names]
    refused = [name for name, answer in zip(names, answers, strict=True) if isinstance(answer, Rejected)]
    assert refused == names[limits.ERASURES_KEPT :]
    assert all(isinstance(answer, Accepted) or answer.reason is Reason.LIMIT_EXCEEDED for answer in answers)

    async with _leading(log, keys) as writer:
        assert isinstance(await writer.execute(cmd.EraseJob(JobId(refused[0]), (job_key_id(refused[0]),))), Rejected)
        keys.failures = 20
        await until(lambda: not owed_erasures(writer.state))
        for name in refused:
            await writer.execute(cmd.EraseJob(JobId(name), (job_key_id(name),)))
        await until(lambda: set(keys.secrets) == {job_key_id("j-stays")})
        await until(lambda: not owed_erasures(writer.state))
    async with _leading(log, keys) as writer:
        assert not owed_erasures(writer.state)
        assert len(writer.state.erasures) == limits.ERASURES_KEPT


async def test_one_key_that_will_not_go_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays owed, whatever is erased after it, and through a change of leaders."""
    monkeypatch.setattr("hivefold.limits.RESEND_DELAY_S", 0.0)
    log, keys = MemoryEventLog(), StubbornKeys(failures=sys.maxsize, only=job_key_id("stuck"))
    await keys.obtain(job_key_id("stuck"))
    async with _leading(log, keys) as writer:
        await _erase(writer, "stuck")
        for number in range(limits.ERASURES_KEPT + 20):
            await _erase(writer, f"j-{number}")
            if not number % 50:
                await until(lambda: [erasure.job_id for erasure in owed_erasures(writer.state)] == ["stuck"])
    keys.failures = 0
    async with _leading(log, keys) as writer:
        await until(lambda: not keys.secrets)
        await until(lambda: not owed_erasures(writer.state))


async def test_an_erased_job_stays_erased_and_others_stay() -> None:
    """Its keys go, its output is refused by reason, erasing again is the same; another's upload is read as before."""
    log, broker, chunks = MemoryEventLog(), MemoryBroker(), MemoryChunks()
    async with serving(log, broker, chunks) as served:
        jobs, store = served.fleet.jobs, served.keys
        mine = await served.fleet.blobs.upload(lambda: iter([b"rows" * 640]), 2560, "mine")
        other = await served.fleet.blobs.upload(lambda: iter([b"rows" * 640]), 2560, "other")
        assert mine.root != other.root
        assert await served.fleet.blobs.upload(lambda: iter([b"rows" * 640]), 2560, "mine") == mine
        job = await _ended_job(served.writer, mine.root)
        await store.obtain(job_key_id(job))

        view = await jobs.erase(job)
        assert view.HasField("erase_time")
        assert (await jobs.get(job)).erase_time == view.erase_time
        assert await jobs.erase(job) == view
        assert set(store.secrets) == {await key_of(chunks, other.root)}
        assert b"".join([piece async for piece in served.fleet.blobs.download(other.root)]) == b"rows" * 640
        with pytest.raises(DataRefusedError) as refusal:
            await anext(aiter(served.fleet.blobs.download(mine.root)))
        assert refusal.value.reason is Reason.JOB_ERASED
        with pytest.raises(DataRefusedError, match=job) as refusal:
            await jobs.download_output(job, "never.npz")
        assert refusal.value.reason is Reason.JOB_ERASED


async def test_data_that_an_open_job_reads_are_not_erased() -> None:
    """The refusal names the reader."""
    async with serving(MemoryEventLog(), MemoryBroker(), chunks := MemoryChunks()) as served:
        root = (await upload_bytes(chunks, b"rows", DataKey("d" + "0" * 32, b"k" * 32))).root
        job = await _ended_job(served.writer, root)
        reader = await _submitted(served.writer, root, "reader")
        for erased in (job, reader):
            with pytest.raises(ConflictError, match=reader):
                await served.fleet.jobs.erase(erased)
        with pytest.raises(NotFoundError):
            await served.fleet.jobs.erase("nobody")


async def _submitted(writer: Writer, root: str, name: str) -> str:
    spec = samples.infer(10)
    content = type(spec.data_set.content)(Digest(root), 2560)
    kind = type(spec)(spec.model, type(spec.data_set)(content, "", "FP32", (64,), 10))
    if not writer.state.models:
        await writer.execute(cmd.RegisterModel(samples.model()))
    answer = await writer.execute(samples.submit(name, kind))
    assert not hasattr(answer, "message"), answer
    return name


async def _ended_job(writer: Writer, root: str) -> str:
    job = await _submitted(writer, root, "ended")
    await writer.execute(cmd.CancelJob(JobId(job)))
    return job

"""A log without room, on real processes: writes are refused with LOG_FULL, reads go on, nothing recorded is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coordinator.replay import Replayer
from hivefold.client import Fleet, JobOptions, connect
from hivefold.config import CoordinatorConfig, write_coordinator_config
from hivefold.errors import HivefoldError, LogFullError, UnavailableError
from hivefold.log.port import Stored
from hivefold.rpc import error_from_rpc, open_channel
from hivefold.server.embedded import EmbeddedServer, RunningServer
from hivefold.v1 import job_pb2, job_service_pb2
from hivefold.v1.job_service_pb2_grpc import JobServiceStub
from tests.fixtures.nats import require_nats_server
from tests.integration.daemons import free_port
from tests.integration.fleets import environment
from tests.integration.refusals import everything, refused

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]
LOG_BYTES: Final = 256 * 1024
DISK_BYTES: Final = 24 * 1024 * 1024
LABELS: Final = {f"label-{number}": "x" * 200 for number in range(32)}


@contextlib.asynccontextmanager
async def coordinator(
    server: RunningServer, folder: Path, log_max_bytes: int
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A coordinator without nodes upon `server`, and its address."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    config = folder / "coordinator.toml"
    write_coordinator_config(
        config,
        CoordinatorConfig(
            core=server.core,
            nodes=server.nodes,
            system=server.system,
            coordinator_id="small",
            port=port,
            data_dir=folder,
            log_max_bytes=log_max_bytes,
        ),
    )
    with (folder / "coordinator.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "coordinator", "--config", config, stdout=log, stderr=log, env=environment()
        )
    try:
        await until_serving(address)
        yield process, address
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 20)


async def until_serving(address: str) -> None:
    async with asyncio.timeout(30), open_channel(address) as channel:
        while True:
            with contextlib.suppress(Exception):
                answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            await asyncio.sleep(0.05)


async def fill(address: str) -> tuple[list[str], HivefoldError]:
    """Submits jobs until one is refused or not answered: those that were acknowledged, and what was said then."""
    accepted: list[str] = []
    spec = job_pb2.JobSpec(probe=job_pb2.ProbeSpec(task_count=1), labels=LABELS)
    async with asyncio.timeout(60), open_channel(address) as channel:
        stub = JobServiceStub(channel)
        while True:
            request = job_service_pb2.SubmitJobRequest(request_id=f"fill-{len(accepted)}", spec=spec)
            try:
                answer = await stub.SubmitJob(request, timeout=4)
            except grpc.aio.AioRpcError as error:
                return accepted, error_from_rpc(error, address)
            accepted.append(answer.job.job_id)


async def check_reads(client: Fleet, accepted: list[str]) -> None:
    """Everything that was acknowledged is there, live and in the log; the replay is the live state."""
    head = await client.log.head(with_state_digest=True)
    replayer = Replayer()
    for record in await everything(client.log.read(up_to=head.sequence)):
        replayer.step(Stored(record.sequence, record.subject, record.data))
    assert replayer.result().digest() == head.state_digest
    assert set(accepted) <= set(replayer.result().state.jobs)
    assert {job.job_id for job in await everything(client.jobs.list())} >= set(accepted)


async def test_a_full_log_refuses_writes_and_serves_reads(tmp_path: Path) -> None:
    """LOG_FULL says what to raise; the same process goes on, and with more room so does the fleet."""
    await require_nats_server()
    server = await EmbeddedServer(tmp_path / "nats", port=0).start()
    try:
        async with coordinator(server, tmp_path, LOG_BYTES) as (process, address), connect(address) as client:
            accepted, full = await fill(address)
            assert isinstance(full, LogFullError)
            for _ in range(5):
                error = await refused(client.jobs.submit_probe(1, options=JobOptions(labels=LABELS)), LogFullError)
                assert "log_max_bytes" in error.message
            assert len(accepted) > 5
            await check_reads(client, accepted)
            await until_serving(address)
            assert process.returncode is None
        async with coordinator(server, tmp_path, 2 * LOG_BYTES) as (_, address), connect(address) as client:
            await client.jobs.submit_probe(1, options=JobOptions(labels=LABELS))
            await check_reads(client, accepted)
    finally:
        await server.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_loses_no_acknowledged_job(small_disk: Path, tmp_path: Path) -> None:
    """The server itself runs out of disk: what was acknowledged is there once there is room again."""
    await require_nats_server()
    server = await EmbeddedServer(small_disk / "nats", port=0).start()
    try:
        async with coordinator(server, tmp_path, 1 << 30) as (_, address), connect(address) as client:
            ballast = small_disk / "ballast"
            accepted = [(await client.jobs.submit_probe(1)).job_id for _ in range(5)]
            free = os.statvfs(small_disk)
            ballast.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - 512 * 1024)))
            acknowledged, full = await fill(address)
            accepted += acknowledged
            # The server may refuse, or fall silent with the disk: then nobody knows yet what was stored.
            assert isinstance(full, UnavailableError), full
            assert (await client.log.head()).sequence > 0
            assert {job.job_id for job in await everything(client.jobs.list())} >= set(accepted)
    finally:
        await server.stop()
    ballast.unlink()
    server = await EmbeddedServer(small_disk / "nats", port=0).start()
    try:
        async with coordinator(server, tmp_path, 1 << 30) as (_, address), connect(address) as client:
            await check_reads(client, accepted)
            await client.jobs.submit_probe(1)
    finally:
        await server.stop()

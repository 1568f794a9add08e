"""A log on three NATS servers (R3): one of them is killed, the one that leads the stream too; nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.core.events import TasksSucceeded
from coordinator.replay import Replayer
from hivefold.client import Fleet, JobOptions, connect
from hivefold.errors import UnavailableError
from hivefold.log.port import Stored
from hivefold.server.binary import find_server
from hivefold.v1 import job_pb2
from tests.integration.daemons import daemon, free_port, until_open

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
TASKS = 300


class Cluster:
    """Three servers that replicate between each other, each of which may be killed and started again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._names = ("s1", "s2", "s3")
        self._ports = {name: free_port() for name in self._names}
        self._routes = {name: free_port() for name in self._names}
        self.monitors = {name: free_port() for name in self._names}
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._binary = asyncio.run(find_server()).path

    @property
    def urls(self) -> str:
        """All servers, for a client."""
        return ",".join(f"nats://127.0.0.1:{port}" for port in self._ports.values())

    def start(self, name: str) -> None:
        """Starts one server; returns once it listens."""
        routes = [f"nats://127.0.0.1:{port}" for other, port in self._routes.items() if other != name]
        content = {
            "server_name": name,
            "host": "127.0.0.1",
            "port": self._ports[name],
            "http": f"127.0.0.1:{self.monitors[name]}",
            "jetstream": {"store_dir": str(self._directory / name), "sync_interval": "always"},
            "cluster": {"name": "hf", "host": "127.0.0.1", "port": self._routes[name], "routes": routes},
        }
        path = self._directory / f"{name}.conf"
        path.write_text(json.dumps(content))
        with (self._directory / f"{name}.log").open("a") as log:
            process = subprocess.Popen([self._binary, "--config", path], stderr=log, text=True)
        self._running[name] = process
        until_open(self._ports[name], process, self._directory / f"{name}.log")

    def start_all(self) -> None:
        """Starts the three; returns once they have agreed on who leads."""
        for name in self._names:
            self.start(name)
        deadline = time.monotonic() + 60
        while not self._monitored("s1", "jsz").get("meta_cluster", {}).get("leader"):
            assert time.monotonic() < deadline, "the servers found no leader"
            time.sleep(0.2)

    def leader_of(self, stream: str) -> str:
        """The server that leads a stream."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for name in self._names:
                for account in self._monitored(name, "jsz?streams=1").get("account_details", ()):
                    for detail in account.get("stream_detail", ()):
                        if detail["name"] == stream and detail.get("cluster", {}).get("leader"):
                            return str(detail["cluster"]["leader"])
            time.sleep(0.2)
        raise AssertionError(f"nobody leads {stream}")

    def kill(self, name: str) -> None:
        """kill -9 of one server."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """Ends all of them."""
        for name in tuple(self._running):
            self.kill(name)

    def _monitored(self, name: str, page: str) -> Any:
        url = f"http://127.0.0.1:{self.monitors[name]}/{page}"
        with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(url, timeout=2) as answer:
            return json.load(answer)
        return {}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    try:
        cluster.start_all()
        yield cluster
    finally:
        cluster.stop()


async def submitted(client: Fleet, request_id: str) -> job_pb2.Job:
    """A job, asked for until it is acknowledged."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await client.jobs.submit_probe(
                    TASKS, task_duration_s=0.02, options=JobOptions(request_id=request_id)
                )
            except UnavailableError:
                await asyncio.sleep(0.2)


async def successes(client: Fleet) -> Counter[tuple[str, int]]:
    """How often each task succeeded in the log; the replay's digest is the live one."""
    head = await client.log.head(with_state_digest=True)
    replayer, found = Replayer(), Counter[tuple[str, int]]()
    async for record in client.log.read(up_to=head.sequence):
        read, _ = replayer.step(Stored(record.sequence, record.subject, record.data))
        for event in read.events:
            if isinstance(event, TasksSucceeded):
                found.update((event.job_id, task) for task in event.tasks)
    assert replayer.result().digest() == head.state_digest
    return found


def test_losing_the_server_that_leads_the_log_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """Killed in mid job, twice: appends, work and results go on with the two others, and again with all three."""
    port = free_port()
    servers = ("--nats-servers", cluster.urls)
    found = ("--monitor-url", f"http://127.0.0.1:{cluster.monitors['s1']}", "--log-replicas", "3")
    places = ("--port", str(port), "--data-dir", str(tmp_path / "c"))
    nodes = ("--port", str(free_port()), "--data-dir", str(tmp_path / "n"), "--slots", "4")

    async def story() -> None:
        async with connect(f"127.0.0.1:{port}") as client:
            jobs = [await submitted(client, "first")]
            for number in range(2):
                lost = cluster.leader_of("HF_LOG")
                cluster.kill(lost)
                jobs.append(await submitted(client, f"while-{number}"))
                cluster.start(lost)
            for job in jobs:
                ended = await client.jobs.wait(job.job_id)
                assert ended.state == job_pb2.JOB_STATE_SUCCEEDED
            assert await successes(client) == Counter({(job.job_id, task): 1 for job in jobs for task in range(TASKS)})

    said = tmp_path / "c.log"
    with (
        daemon(said, "coordinator", "run", *servers, *found, *places) as coordinator,
        daemon(tmp_path / "n.log", "node", "run", "--id", "n", *servers, *nodes),
    ):
        until_open(port, coordinator, said)
        asyncio.run(story())

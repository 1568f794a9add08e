"""The embedded nats-server: starts fast, keeps its state, lets in whom it should and nobody else."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from hivefold.broker import BrokerSettings, Secret
from hivefold.bus import api, frames
from hivefold.bus.connection import connect
from hivefold.bus.link import Link
from hivefold.bus.streams import prepare_streams
from hivefold.config import Durability
from hivefold.errors import BrokerUnavailableError, ConfigError, DurabilityWeakError
from hivefold.log.jetstream import open_log
from hivefold.log.naming import STREAM
from hivefold.log.port import TERM_SUBJECT, Entry
from hivefold.log.stream import LogSettings
from hivefold.server.accounts import SYSTEM_USER
from hivefold.server.binary import find_server
from hivefold.server.durability import check_server
from hivefold.server.embedded import EmbeddedServer, RunningServer
from hivefold.server.mending import CHECKSUM
from hivefold.server.probe import lets_in
from tests.fixtures.nats import bare_server, require_nats_server

pytestmark = pytest.mark.integration


async def test_state_and_passwords_survive_a_restart(tmp_path: Path) -> None:
    """A second start on the same directory listens on the same port, takes the same passwords, has the same log."""
    await require_nats_server()
    first = await EmbeddedServer(tmp_path, port=0).start()
    node = await first.node("node-7")
    log = await open_log(await connect(first.core))
    await log.append([Entry(TERM_SUBJECT, b"term")], expected_sequence=0, term_sequence=0)
    await log.close()
    await first.stop()

    second = await EmbeddedServer(tmp_path).start()

    assert (second.core, await second.node("node-7")) == (first.core, node)
    log = await open_log(await connect(second.core))
    assert (await log.head()).sequence == 1
    await log.close()
    await second.stop()


async def test_a_stream_whose_change_was_cut_short_is_found_again(tmp_path: Path) -> None:
    """kill -9 while nats-server changed a stream: its configuration is the new one, its checksum the old one."""
    await require_nats_server()
    first = await EmbeddedServer(tmp_path, port=0).start()
    log = await open_log(await connect(first.core), LogSettings(max_bytes=1 << 30))
    await log.append([Entry(TERM_SUBJECT, b"term")], expected_sequence=0, term_sequence=0)
    await log.close()
    (checksum,) = tmp_path.glob(f"store/jetstream/*/streams/{STREAM}/{CHECKSUM}")
    before, written_ns = checksum.read_text(), checksum.stat().st_mtime_ns
    await (await open_log(await connect(first.core), LogSettings(max_bytes=1 << 31))).close()
    assert checksum.read_text() != before
    os.kill(first.pid, signal.SIGKILL)
    await first.wait()
    await first.stop()
    checksum.write_text(before)
    os.utime(checksum, ns=(written_ns, written_ns))

    second = await EmbeddedServer(tmp_path).start()
    link = await connect(second.core)
    info = await api.call(link, f"STREAM.INFO.{STREAM}")
    assert (info["config"]["max_bytes"], info["state"]["last_seq"]) == (1 << 31, 1)
    await link.close()
    await second.stop()


async def test_what_it_writes_is_its_owners_alone(nats_server: RunningServer, tmp_path: Path) -> None:
    """Configuration and passwords cannot be read by others, and no password is on the command line."""
    directory = tmp_path / "nats"
    secret_files = [directory / "server.conf", *(directory / "passwords").iterdir()]

    assert {stat.S_IMODE(path.stat().st_mode) for path in secret_files} == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    arguments = Path(f"/proc/{nats_server.pid}/cmdline")
    if arguments.exists():
        assert nats_server.core.password.reveal().encode() not in arguments.read_bytes()


async def test_a_given_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    """The error names the port; without a port the next free one is taken."""
    await require_nats_server()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=str(port)):
            await EmbeddedServer(tmp_path, port=port).start()
        (tmp_path / "port").write_text(str(port))

        server = await EmbeddedServer(tmp_path).start()

    assert server.url != f"nats://127.0.0.1:{port}"
    await server.stop()


async def test_two_servers_never_share_a_directory(nats_server: RunningServer, tmp_path: Path) -> None:
    """A second start beside a running one is refused; after the stop it succeeds."""
    with pytest.raises(ConfigError, match="another"):
        await EmbeddedServer(tmp_path / "nats").start()

    await nats_server.stop()
    again = await EmbeddedServer(tmp_path / "nats", port=0).start()
    await again.stop()


async def test_an_orphan_is_ended_before_a_new_start(tmp_path: Path) -> None:
    """A server whose starter was killed is stopped first: two on one store would ruin it."""
    await require_nats_server()
    orphan = await EmbeddedServer(tmp_path, port=0).start()
    orphan._at_end.close()  # as the end of its process would

    server = await EmbeddedServer(tmp_path).start()

    assert await orphan.wait() is not None
    assert server.url == orphan.url
    await server.stop()


async def test_an_orphan_whose_end_nobody_collects_does_not_hold_up_a_start(tmp_path: Path) -> None:
    """In a container whose first process collects no orphans the ended one stays in the process table for ever."""
    await require_nats_server()
    first = await EmbeddedServer(tmp_path, port=0).start()
    await first.stop()
    program = (await find_server()).path
    command = [str(program), "--config", str(tmp_path / "server.conf")]
    with await asyncio.to_thread(lambda: subprocess.Popen(command, stderr=subprocess.DEVNULL)) as orphan:
        async with asyncio.timeout(30):
            while not await lets_in("127.0.0.1", urlsplit(first.url).port or 0, SYSTEM_USER, first.system.password):
                await asyncio.sleep(0.05)
            server = await EmbeddedServer(tmp_path).start()
        await server.stop()
        assert orphan.poll() is not None


async def test_its_end_is_noticed(nats_server: RunningServer) -> None:
    """Whoever waits for the server learns that it was killed."""
    os.kill(nats_server.pid, signal.SIGKILL)

    assert await nats_server.wait() == -signal.SIGKILL
    assert nats_server.exited


async def test_a_node_may_join_while_the_server_runs(nats_server: RunningServer) -> None:
    """A new node's user works at once; connections that are there stay."""
    link = await connect(nats_server.core)
    lost: list[None] = []
    link.on_reconnect(lambda: lost.append(None))

    newcomer = await connect(await nats_server.node("node-99"))

    await api.call(link, "INFO")
    assert not lost
    await newcomer.close()
    await link.close()


@pytest.mark.parametrize("node_id", ["", "a.b", "*", ">", "x y", "UPPER", "../up"])
async def test_a_node_name_cannot_widen_its_permissions(nats_server: RunningServer, node_id: str) -> None:
    """Names that would be subjects or paths are refused."""
    with pytest.raises(ConfigError):
        await nats_server.node(node_id)


async def refused(link: Link, subject: str, data: bytes = b"", headers: bytes = b"") -> bool:
    """Whether a request is not answered: NATS drops what a user may not publish."""
    try:
        await link.ask(subject, data, headers=headers, timeout_s=0.2)
    except BrokerUnavailableError:
        return True
    return False


async def test_a_node_does_what_is_its_own_and_nothing_else(nats_server: RunningServer) -> None:
    """Its own results and blobs are stored; others' results, work, streams, the log, the system are out of reach."""
    coordinator = await connect(nats_server.nodes)
    await prepare_streams(coordinator)
    core = await open_log(await connect(nats_server.core))
    await core.append([Entry(TERM_SUBJECT, b"term")], expected_sequence=0, term_sequence=0)
    node = await connect(await nats_server.node("node-1"))

    assert not await refused(node, "results.node-1.job.0.1", b"mine")
    assert not await refused(node, "inference.node-1.boot-1.1", b"mine")
    assert not await refused(node, "blob.chunk.abc", b"bytes")
    assert not await refused(node, "$JS.API.DIRECT.GET.HF_BLOBS.blob.chunk.abc")
    forbidden = [
        "results.node-2.job.0.1",
        "express.results.node-2.job.0.1",
        "express.work.node-1",
        "results.node-1",
        "heartbeat.node-2",
        "telemetry.node-2",
        "inference.node-2.boot-1.1",
        "$JS.API.DIRECT.GET.HF_INFERENCE.inference.node-1.boot-1.1",
        "work.node-2",
        "work.node-1",
        "events.job.x",
        "control.node-2",
        "fleet.pulse",
        "log.term",
        "log.job.x",
        "$JS.API.STREAM.INFO.HF_LOG",
        "$JS.API.STREAM.MSG.GET.HF_LOG",
        "$JS.API.STREAM.DELETE.HF_RESULTS",
        "$JS.API.STREAM.PURGE.HF_RESULTS",
        "$JS.API.STREAM.UPDATE.HF_RESULTS",
        "$JS.API.STREAM.CREATE.MINE",
        "$JS.API.STREAM.NAMES",
        "$JS.API.CONSUMER.CREATE.HF_RESULTS",
        "$JS.API.CONSUMER.MSG.NEXT.HF_WORK.node-2",
        "$JS.API.DIRECT.GET.HF_RESULTS.results.node-2.job.0.1",
        "$JS.API.DIRECT.GET.HF_WORK.work.node-2",
        "$SYS.REQ.SERVER.PING.VARZ",
    ]
    assert [subject for subject in forbidden if not await refused(node, subject, b"{}")] == []
    assert (await core.head()).sequence == 1
    for stream, messages in (("HF_RESULTS", 1), ("HF_EVENTS", 0)):
        state = (await api.call(coordinator, f"STREAM.INFO.{stream}"))["state"]
        assert state["messages"] == messages
    for link in (node, coordinator):
        await link.close()
    await core.close()


async def test_a_node_cannot_erase_others_results_with_headers(nats_server: RunningServer) -> None:
    """Rollup and a chosen message id, on a subject of its own, leave the others' results as they are."""
    coordinator = await connect(nats_server.nodes)
    await prepare_streams(coordinator)
    one, two = [await connect(await nats_server.node(name)) for name in ("node-1", "node-2")]
    await one.ask("results.node-1.job.0.1", b"one", timeout_s=2)

    for header in ({"Nats-Rollup": "all"}, {"Nats-Msg-Id": "x"}, {"Nats-TTL": "1s"}):
        await two.ask("results.node-2.job.0.1", b"two", headers=frames.header_block(header), timeout_s=2)

    assert (await api.last_on(coordinator, "HF_RESULTS", "results.node-1.job.0.1")).data == b"one"
    for link in (one, two, coordinator):
        await link.close()


async def test_a_node_hears_only_what_is_for_it(nats_server: RunningServer) -> None:
    """Subscriptions to others' control, work or inboxes bring nothing; its own, the pulse and all heartbeats do."""
    coordinator = await connect(nats_server.nodes)
    node = await connect(await nats_server.node("node-1"))
    heard: list[bytes] = []
    for subject in (
        ">",
        "control.*",
        "heartbeat.*",
        "telemetry.*",
        "work.>",
        "_INBOX.>",
        "_INBOX_node-2.>",
        "control.node-1",
        "express.>",
        "express.work.node-1",
        "fleet.pulse",
    ):
        await node.listen(subject, lambda subject, _reply, _data, _headers: heard.append(subject))
    await node.flush()

    for subject in (
        "control.node-2",
        "heartbeat.node-2",
        "telemetry.node-2",
        "_INBOX.x",
        "_INBOX_node-2.x",
        "express.work.node-2",
        "express.work.node-1",
        "control.node-1",
        "fleet.pulse",
    ):
        await coordinator.publish(subject, b"x")
    await coordinator.flush()
    await node.flush()

    assert sorted(heard) == [b"control.node-1", b"express.work.node-1", b"fleet.pulse", b"heartbeat.node-2"]
    await node.close()
    await coordinator.close()


async def test_nobody_enters_without_a_password(nats_server: RunningServer) -> None:
    """No user, a wrong password, another user's password: refused with the user named."""
    for settings in (
        BrokerSettings(servers=nats_server.core.servers),
        BrokerSettings(servers=nats_server.core.servers, user="coordinator-core", password=Secret("guess")),
        BrokerSettings(servers=nats_server.core.servers, user="coordinator-core", password=nats_server.nodes.password),
    ):
        with pytest.raises(ConfigError):
            await connect(settings)


async def test_the_embedded_server_syncs_before_it_answers(nats_server: RunningServer) -> None:
    """Its durability is found out through the system account and is the strongest."""
    link = await connect(nats_server.core)

    facts = await check_server(link, Durability.FSYNC_ALWAYS, system=nats_server.system)

    assert facts.durability is Durability.FSYNC_ALWAYS
    assert facts.version >= (2, 12, 0)
    await link.close()


async def test_an_unknown_durability_is_refused_unless_accepted(nats_server: RunningServer) -> None:
    """Without a way to look it up the error says which settings give one."""
    link = await connect(nats_server.core)

    with pytest.raises(DurabilityWeakError, match="monitor_url"):
        await check_server(link, Durability.FSYNC_ALWAYS)
    facts = await check_server(link, Durability.UNKNOWN)

    assert facts.durability is Durability.UNKNOWN
    await link.close()


async def test_a_server_that_syncs_at_an_interval_is_refused_unless_accepted(tmp_path: Path) -> None:
    """JetStream's default may lose what it acknowledged; the error says what to put into its configuration."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monitor = probe.getsockname()[1]
    async with bare_server("-js", "-sd", str(tmp_path), "-m", str(monitor)) as settings:
        link = await connect(settings, wait_s=5.0)
        url = f"http://127.0.0.1:{monitor}"

        with pytest.raises(DurabilityWeakError, match="sync_interval: always"):
            await check_server(link, Durability.FSYNC_ALWAYS, monitor_url=url)
        facts = await check_server(link, Durability.FSYNC_INTERVAL, monitor_url=url)

        assert facts.durability is Durability.FSYNC_INTERVAL
        await link.close()


async def test_a_server_without_jetstream_is_refused() -> None:
    """The error says how to turn it on."""
    async with bare_server() as settings:
        link = await connect(settings, wait_s=5.0)

        with pytest.raises(ConfigError, match="-js"):
            await check_server(link, Durability.UNKNOWN)

        await link.close()


async def test_only_the_system_account_can_be_asked(nats_server: RunningServer) -> None:
    """An ordinary user under [system] is named in the error."""
    link = await connect(nats_server.core)

    with pytest.raises(ConfigError, match="system account"):
        await check_server(link, Durability.FSYNC_ALWAYS, system=nats_server.nodes)

    await link.close()


async def test_a_start_that_fails_tells_what_the_server_said(tmp_path: Path) -> None:
    """A store that cannot be used is reported in the server's own words, and nothing is left running."""
    await require_nats_server()
    (tmp_path / "store").write_text("in the way")

    with pytest.raises(ConfigError, match="storage directory"):
        await asyncio.wait_for(EmbeddedServer(tmp_path, port=0).start(), 20)

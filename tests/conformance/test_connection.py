"""Connecting: what fails says what to do, what works goes on for ever."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from nats.aio.client import Client

from hivefold.broker import BrokerSettings, Secret
from hivefold.bus.connection import connect
from hivefold.bus.streams import StreamSettings, prepare_stream, prepare_streams, stream_configs
from hivefold.errors import BrokerUnavailableError, ConfigError
from tests.fixtures.bus import NatsBus, eventually, soon

pytestmark = pytest.mark.integration


async def test_an_unreachable_server_is_named_without_its_secrets() -> None:
    """At once; the address is in the message, the password in the URL is not."""
    with pytest.raises(BrokerUnavailableError, match=r"NATS at 127\.0\.0\.1:1, .* start nats-server") as refusal:
        await connect(BrokerSettings(servers=("nats://me:hidden@127.0.0.1:1", "127.0.0.1:1")))
    assert "hidden" not in refusal.value.message


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"password": Secret("wrong")}, "user 'coordinator-nodes' with its password"),
        ({"user": "", "password": Secret(), "token": Secret("wrong")}, "the token"),
        ({"user": "", "password": Secret()}, "a connection without credentials"),
    ],
)
async def test_a_refused_credential_is_named(nats_bus: NatsBus, changes: dict[str, object], named: str) -> None:
    """Which of the ways to log in failed; never the secret."""
    settings = replace(nats_bus.server.nodes, **changes)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=named) as refusal:
        await connect(settings, wait_s=5)
    assert "wrong" not in refusal.value.message


async def test_a_file_that_is_no_credential_is_named(tmp_path: Path) -> None:
    """Before anything is sent: nats-py would read such a file for ever."""
    path = tmp_path / "some.creds"
    path.write_text("nothing")
    for settings in (
        BrokerSettings(credentials_file=str(path)),
        BrokerSettings(nkey_file=str(path)),
        BrokerSettings(credentials_file=str(tmp_path / "missing")),
        BrokerSettings(tls_ca_file=str(path)),
    ):
        with pytest.raises(ConfigError, match=str(tmp_path)):
            await connect(settings)


async def test_a_killed_server_is_come_back_to(nats_bus: NatsBus) -> None:
    """The callbacks tell both, once each; a close by ourselves is no disconnect."""
    told: list[str] = []
    link = await connect(
        nats_bus.server.nodes,
        on_reconnect=lambda: told.append("reconnected"),
        on_disconnect=lambda: told.append("disconnected"),
    )
    os.kill(nats_bus.server.pid, signal.SIGKILL)
    await nats_bus.server.wait()
    await nats_bus.server.stop()
    await eventually(lambda: told == ["disconnected"])
    await nats_bus.open()
    await eventually(lambda: told == ["disconnected", "reconnected"])
    await link.close()
    assert told == ["disconnected", "reconnected"]


async def test_an_account_without_jetstream_is_refused_with_what_to_do(nats_bus: NatsBus) -> None:
    """The system account has none."""
    link = await connect(nats_bus.server.system)
    with pytest.raises(ConfigError, match="JetStream"):
        await prepare_streams(link)
    await link.close()


async def test_streams_take_new_bounds_and_refuse_to_be_someone_elses(nats_bus: NatsBus) -> None:
    """Preparing again is harmless; a stream of another nature under one of our names is not touched."""
    link = await nats_bus.coordinator_link()
    await prepare_streams(link, StreamSettings(results_max_bytes=1_000_000))
    foreign = stream_configs(StreamSettings())[1] | {"retention": "interest"}
    with pytest.raises(ConfigError, match="HF_RESULTS exists with retention 'limits'"):
        await prepare_stream(link, foreign)


async def test_too_little_storage_is_refused_with_what_to_do(nats_bus: NatsBus) -> None:
    """The server's limit and the setting are named."""
    link = await nats_bus.coordinator_link()
    with pytest.raises(ConfigError, match=r"lower its max_bytes or raise the server.s JetStream"):
        await prepare_streams(link, StreamSettings(work_max_bytes=1 << 50))


async def test_a_flush_proves_that_what_was_sent_before_has_arrived(nats_bus: NatsBus) -> None:
    """The ping never overtakes: an echo of each message is there when its flush returns."""
    link = await nats_bus.coordinator_link()
    heard: list[bytes] = []
    await link.listen("echo", lambda _subject, _reply, data, _headers: heard.append(data))
    for number in range(200):
        await link.publish("echo", b"%d" % number)
        await link.flush()
        assert len(heard) == number + 1


async def test_a_closed_connection_stops_looking_for_a_server(nats_bus: NatsBus) -> None:
    """Even where nats-py's task missed that it was cancelled: else its process could never end."""
    link = await nats_bus.coordinator_link()
    await nats_bus.stop_server()
    await eventually(lambda: link.is_reconnecting)
    looking = link._reconnection_task
    assert looking is not None
    link._status = Client.CLOSED  # closed, and the task was not told
    await soon(looking)

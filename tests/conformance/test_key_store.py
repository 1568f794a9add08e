"""What every KeyStore keeps to; and that a real server overwrites what was shredded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from hivefold.blobs.keys import KeyStore, MemoryKeys
from hivefold.blobs.keys_jetstream import open_keys
from hivefold.bus.connection import connect
from hivefold.bus.link import Link
from hivefold.entropy import SystemEntropy
from hivefold.errors import DataRefusedError, Reason
from hivefold.server.embedded import EmbeddedServer, RunningServer
from tests.fixtures.nats import require_nats_server

pytestmark = pytest.mark.integration

Restarted = Callable[[], Awaitable[KeyStore]]


@pytest_asyncio.fixture(params=["memory", "nats"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Restarted]:
    """Gives the store; called again, it has been started again on the same data."""
    if request.param == "memory":
        memory = MemoryKeys(SystemEntropy())

        async def same() -> KeyStore:
            return memory

        yield same
        return
    await require_nats_server()
    running: list[tuple[Link, RunningServer]] = []

    async def stop() -> None:
        for link, server in running:
            await link.close()
            await server.stop()
        running.clear()

    async def started() -> KeyStore:
        await stop()
        server = await EmbeddedServer(tmp_path / "nats", port=0).start()
        link = await connect(server.core)
        running.append((link, server))
        return await open_keys(link, SystemEntropy())

    yield started
    await stop()


async def test_a_key_is_made_once_and_stays(opened: Restarted) -> None:
    """Whoever asks for it gets the same, also after a restart; another name is another key."""
    keys = await opened()
    first = await keys.obtain("j.job-a")
    assert len(first.secret) == 32
    assert (await keys.obtain("j.job-a")).secret == first.secret
    assert (await keys.obtain("j.job-b")).secret != first.secret
    assert (await (await opened()).get("j.job-a")).secret == first.secret


async def test_a_key_that_was_shredded_is_gone(opened: Restarted) -> None:
    """Also after a restart; shredding it again, or what never was, does nothing."""
    keys = await opened()
    old = await keys.obtain("d0")
    await keys.shred("d0")
    await keys.shred("d0")
    await keys.shred("never")
    for _ in range(2):
        with pytest.raises(DataRefusedError, match="d0") as refusal:
            await keys.get("d0")
        assert refusal.value.reason is Reason.JOB_ERASED
        keys = await opened()
    assert (await keys.obtain("d0")).secret != old.secret


async def test_shredded_keys_are_overwritten_on_the_disk(tmp_path: Path) -> None:
    """No file of the server holds their bytes: at once, after a restart, after the stream was made smaller."""
    await require_nats_server()

    def stored() -> bytes:
        return b"".join(path.read_bytes() for path in sorted((tmp_path / "nats").rglob("*")) if path.is_file())

    server = await EmbeddedServer(tmp_path / "nats", port=0).start()
    link = await connect(server.core)
    keys = await open_keys(link, SystemEntropy())
    secrets = {name: (await keys.obtain(name)).secret for name in [f"k{number}" for number in range(200)]}
    assert all(secret in stored() for secret in secrets.values())
    gone = [name for number, name in enumerate(secrets) if number % 10]
    for name in gone:
        await keys.shred(name)
    for _ in range(2):
        content = stored()
        assert [name for name in gone if secrets[name] in content] == []
        assert [name for name in secrets if name not in gone and secrets[name] not in content] == []
        await link.close()
        await server.stop()
        server = await EmbeddedServer(tmp_path / "nats", port=0).start()
        link = await connect(server.core)
        keys = await open_keys(link, SystemEntropy())
        assert (await keys.get("k0")).secret == secrets["k0"]
    await link.close()
    await server.stop()

"""What every SnapshotStore keeps to: the same suite for the fake and for a real nats-server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from hivefold.bus.connection import connect
from hivefold.errors import NotFoundError
from hivefold.limits import SNAPSHOTS_KEPT
from hivefold.log.snapshots import MemorySnapshots, SnapshotStore, open_snapshots
from hivefold.server.embedded import RunningServer

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def jetstream(nats_server: RunningServer) -> AsyncIterator[SnapshotStore]:
    link = await connect(nats_server.core)
    yield await open_snapshots(link)
    await link.close()


@pytest.fixture
def memory() -> SnapshotStore:
    return MemorySnapshots()


@pytest.fixture(params=["memory", "jetstream"])
def store(request: pytest.FixtureRequest) -> SnapshotStore:
    found: SnapshotStore = request.getfixturevalue(request.param)
    return found


async def test_an_empty_store_has_nothing(store: SnapshotStore) -> None:
    """No manifest, no part."""
    assert list(await store.manifests()) == []
    with pytest.raises(NotFoundError):
        await store.part("s", 0)


async def test_the_last_manifests_are_kept_newest_first(store: SnapshotStore) -> None:
    """As many as are kept; older ones are forgotten."""
    for number in range(SNAPSHOTS_KEPT + 2):
        await store.put_part(f"s{number}", 0, b"part")
        await store.put_manifest(f"m{number}".encode())

    kept = [f"m{number}".encode() for number in range(2, SNAPSHOTS_KEPT + 2)]
    assert list(await store.manifests()) == kept[::-1]


async def test_parts_are_read_by_name_and_number_until_they_are_dropped(store: SnapshotStore) -> None:
    """One snapshot's parts are not another's; dropping twice is harmless."""
    await store.put_part("a", 0, b"a0")
    await store.put_part("a", 1, bytes(500_000))
    await store.put_part("b", 0, b"b0")
    assert [await store.part("a", 0), await store.part("a", 1), await store.part("b", 0)] == [
        b"a0",
        bytes(500_000),
        b"b0",
    ]

    await store.drop("a")
    await store.drop("a")
    with pytest.raises(NotFoundError):
        await store.part("a", 1)
    assert await store.part("b", 0) == b"b0"

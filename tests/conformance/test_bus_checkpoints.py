"""What every adapter of CheckpointStream keeps to."""

from __future__ import annotations

import pytest

from hivefold.bus.port import Kept
from hivefold.errors import FencedError
from tests.fixtures.bus import Bus

pytestmark = pytest.mark.integration


async def test_an_empty_stream_has_no_checkpoint(bus: Bus) -> None:
    """Neither a last nor a next one."""
    checkpoints = (await bus.coordinator()).checkpoints
    assert await checkpoints.last() is None
    assert await checkpoints.next(0) is None


async def test_checkpoints_are_read_in_order_by_nodes(bus: Bus) -> None:
    """What the coordinator stores, a node reads, from any place on."""
    coordinator, node = (await bus.coordinator()).checkpoints, (await bus.node()).checkpoints
    index, stored = 0, []
    for data in (b"one", b"two", b"three"):
        index = await coordinator.store(data, after=index)
        stored.append(Kept(index, data))
    assert await node.last() == stored[-1]
    assert await node.next(0) == stored[0]
    assert await node.next(stored[0].index + 1) == stored[1]
    assert await node.next(stored[-1].index + 1) is None


async def test_of_two_writers_the_slower_is_refused(bus: Bus) -> None:
    """Whoever does not know the last checkpoint does not lead."""
    fast, slow = (await bus.coordinator()).checkpoints, (await bus.coordinator()).checkpoints
    await fast.store(b"one", after=0)
    with pytest.raises(FencedError):
        await slow.store(b"other", after=0)


async def test_a_checkpoint_whose_answer_was_lost_is_found_stored(bus: Bus) -> None:
    """The same bytes after the same place are the same checkpoint."""
    checkpoints = (await bus.coordinator()).checkpoints
    index = await checkpoints.store(b"one", after=0)
    assert await checkpoints.store(b"one", after=0) == index

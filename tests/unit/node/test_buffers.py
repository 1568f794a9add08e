"""Buffers for rows: used again when nobody can still write into them, and given up when they are not needed."""

from __future__ import annotations

import asyncio

import pytest

from hivefold.limits import BUFFERS_KEPT_S, CHUNK_BYTES
from node import buffers
from node.buffers import RowBuffers


async def test_a_buffer_is_used_again() -> None:
    """What is given back is lent to the next that it is large enough for."""
    lender = RowBuffers(2)
    with lender.lent(CHUNK_BYTES) as first:
        pass
    with lender.lent(CHUNK_BYTES - 5) as second, lender.lent(1) as third:
        assert second is first
        assert third is not first
    with lender.lent(CHUNK_BYTES + 1) as larger:
        assert len(larger) > CHUNK_BYTES


async def test_a_buffer_of_a_failed_attempt_is_never_lent_again() -> None:
    """A thread that was given up may still read or write it."""
    lender = RowBuffers(2)
    with pytest.raises(asyncio.CancelledError), lender.lent(10) as first:
        raise asyncio.CancelledError
    with lender.lent(10) as second:
        assert second is not first


async def test_no_more_buffers_are_kept_than_are_used_at_once() -> None:
    """Of many that were lent at once as many as agreed stay."""
    lender = RowBuffers(1)
    with lender.lent(10) as first, lender.lent(10) as second:
        pass
    with lender.lent(10) as kept, lender.lent(10) as fresh:
        assert kept in (first, second)
        assert fresh is not first
        assert fresh is not second


async def test_idle_buffers_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once nothing was lent for a while the memory is free for others."""
    assert BUFFERS_KEPT_S > 0
    monkeypatch.setattr(buffers, "BUFFERS_KEPT_S", 0.0)
    lender = RowBuffers(2)
    with lender.lent(10) as first:
        pass
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with lender.lent(10) as second:
        assert second is not first

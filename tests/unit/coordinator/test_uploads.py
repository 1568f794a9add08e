"""Uploads that stop bringing anything are ended, so that they hold no place for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from coordinator.servicers.uploads import lively
from hivefold.errors import Reason, UnavailableError


async def some(*values: int, then_silent: bool) -> AsyncIterator[int]:
    for value in values:
        yield value
    if then_silent:
        await asyncio.Event().wait()


async def test_what_comes_is_passed_on_in_order() -> None:
    """Nothing is lost or held back, and the end is the end."""
    assert [value async for value in lively(some(1, 2, 3, then_silent=False))] == [1, 2, 3]


async def test_a_silent_upload_is_ended() -> None:
    """The caller is told why and what to do; what came before was passed on."""
    uploading = lively(some(1, 2, then_silent=True), idle_s=0.01)
    assert [await anext(uploading), await anext(uploading)] == [1, 2]
    with pytest.raises(UnavailableError, match="begin it again") as caught:
        await anext(uploading)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED

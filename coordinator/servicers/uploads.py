"""What a client streams in, as long as it streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from hivefold import limits
from hivefold.errors import Reason, UnavailableError

_Request = TypeVar("_Request")


async def lively(requests: AsyncIterator[_Request], idle_s: float = limits.UPLOAD_IDLE_S) -> AsyncIterator[_Request]:
    """The same requests. Raises UnavailableError (DEADLINE_EXCEEDED) when none comes for `idle_s`."""
    while True:
        try:
            async with asyncio.timeout(idle_s):
                request = await anext(requests, None)
        except TimeoutError:
            raise UnavailableError(
                f"nothing came for {idle_s:g} s: the upload was ended; begin it again",
                reason=Reason.DEADLINE_EXCEEDED,
            ) from None
        if request is None:
            return
        yield request

"""Calls that send a stream: what goes wrong while the caller's own data is read is told as it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias

from hivefold import limits
from hivefold.client.connection import Connection
from hivefold.errors import HivefoldError

Progress: TypeAlias = Callable[[int, int], None]
"""Gets the bytes that have been moved and the bytes in all."""


async def send(connection: Connection, kind: type[Any], method: str, requests: Callable[[], AsyncIterator[Any]]) -> Any:
    """The answer to a stream of requests. Raises hivefold.errors, those of `requests` among them.

    Where another coordinator leads meanwhile, `requests` is called again and all of it is sent there: it MUST give the
    same requests each time. gRPC itself only says of a failing stream of requests that the call was cancelled.
    """
    causes: list[Exception] = []
    try:
        return await connection.call(kind, method, lambda: _noting(requests(), causes), limits.TRANSFER_DEADLINE_S)
    except (HivefoldError, asyncio.CancelledError):
        if causes:
            raise causes[0] from None
        raise


def told(pieces: Iterator[bytes], size_bytes: int, on_progress: Progress | None) -> Iterator[bytes]:
    """The same pieces; each is reported when the next one is asked for."""
    sent = 0
    for piece in pieces:
        yield piece
        sent += len(piece)
        if on_progress is not None:
            on_progress(sent, size_bytes)


async def _noting(requests: AsyncIterator[Any], causes: list[Exception]) -> AsyncIterator[Any]:
    try:
        async for request in requests:
            yield request
    except Exception as error:
        causes.append(error)
        raise

"""Walks the pages of a list."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from hivefold import limits
from hivefold.client.connection import Connection


async def pages(connection: Connection, kind: type[Any], method: str, request: Any, field: str) -> AsyncIterator[Any]:
    """Every item of `field` over all pages of a List call."""
    request.page_size = request.page_size or limits.PAGE_MAX
    while True:
        response = await connection.call(kind, method, request)
        for item in getattr(response, field):
            yield item
        if not response.next_page_token:
            return
        request.page_token = response.next_page_token

"""Walks the pages of a list."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from hivefold import limits
from hivefold.client.connection import Connection


async def pages(
    connection: Connection,
    kind: type[Any],
    method: str,
    request: Any,
    field: str,
    *,
    on_page: Callable[[Any], None] | None = None,
) -> AsyncIterator[Any]:
    """Every item of `field` over all pages of a List call; `on_page` sees each response before its items."""
    request.page_size = request.page_size or limits.PAGE_MAX
    while True:
        response = await connection.call(kind, method, request)
        if on_page is not None:
            on_page(response)
        for item in getattr(response, field):
            yield item
        if not response.next_page_token:
            return
        request.page_token = response.next_page_token

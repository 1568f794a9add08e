"""A nats-server of its own for benchmarks of the log alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hivefold.server.embedded import EmbeddedServer, RunningServer


@contextmanager
def embedded_server(directory: Path) -> Iterator[RunningServer]:
    """A server that lives as long as the block."""
    with asyncio.Runner() as runner:
        server = runner.run(EmbeddedServer(directory, port=0).start())
        try:
            yield server
        finally:
            runner.run(server.stop())


@contextmanager
def embedded_log(directory: Path) -> Iterator[dict[str, str]]:
    """How to reach the CORE account of a server that lives as long as the block."""
    with embedded_server(directory) as server:
        yield log_of(server)


def log_of(server: RunningServer) -> dict[str, str]:
    """How to reach the CORE account of a server."""
    return {"url": server.url, "user": server.core.user, "password": server.core.password.reveal()}

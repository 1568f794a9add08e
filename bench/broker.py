"""A nats-server of its own for benchmarks of the log alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hivefold.server.embedded import EmbeddedServer


@contextmanager
def embedded_log(directory: Path) -> Iterator[dict[str, str]]:
    """How to reach the CORE account of a server that lives as long as the block."""
    with asyncio.Runner() as runner:
        server = runner.run(EmbeddedServer(directory, port=0).start())
        try:
            core = server.core
            yield {"url": server.url, "user": core.user, "password": core.password.reveal()}
        finally:
            runner.run(server.stop())

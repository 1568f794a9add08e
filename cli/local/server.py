"""The nats-server of a local fleet as a part that can be started again in its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cli.local.daemon import tail
from hivefold.limits import LAST_WORDS_LINES
from hivefold.server.embedded import EmbeddedServer, RunningServer


class NatsServer:
    """A nats-server below `directory`; once started it keeps its port."""

    name = "nats"
    essential = True

    def __init__(self, directory: Path, *, port: int | None, nodes: Sequence[str]) -> None:
        self._directory = directory
        self._port = port
        self._nodes = nodes
        self._server: RunningServer | None = None

    @property
    def running(self) -> RunningServer:
        """The started server."""
        assert self._server is not None, "started first"
        return self._server

    @property
    def pid(self) -> int:
        """The process; 0 while it has none."""
        return 0 if self._server is None or self._server.exited else self._server.pid

    async def start(self) -> None:
        """Starts it and waits until it serves. Raises ConfigError."""
        await self.stop()
        self._server = await EmbeddedServer(self._directory, port=self._port, nodes=self._nodes).start()
        self._port = int(self._server.url.rpartition(":")[2])

    async def wait(self) -> int:
        """Waits until it ends; its exit code (negative: the signal)."""
        return await self.running.wait()

    async def stop(self) -> None:
        """Ends it in order and gives its directory back. Idempotent."""
        if self._server is not None:
            await self._server.stop()

    def last_words(self) -> str:
        """The last lines of its log."""
        return tail(self._directory / "server.log", LAST_WORDS_LINES)

"""The two sides that must tell the same: the fakes, and the adapters on a real nats-server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol
from unittest.mock import patch

from hivefold.blobs.jetstream import JetStreamChunks
from hivefold.blobs.memory import MemoryChunks
from hivefold.blobs.port import ChunkStore
from hivefold.broker import BrokerSettings
from hivefold.bus import api, port, streams
from hivefold.bus.connection import connect
from hivefold.bus.events import NatsEventSender
from hivefold.bus.link import Link
from hivefold.bus.memory import MemoryBroker
from hivefold.bus.results import NatsResultReceiver, NatsResultSender
from hivefold.bus.signals import NatsSignals
from hivefold.bus.streams import prepare_streams
from hivefold.bus.work import NatsWorkReceiver, NatsWorkSender
from hivefold.errors import BrokerUnavailableError
from hivefold.log.jetstream import open_log
from hivefold.log.memory import MemoryEventLog
from hivefold.log.port import EventLog
from hivefold.server.embedded import EmbeddedServer, RunningServer

NODES: Final = ("node-1", "node-2")
WRITERS: Final = 2
_PATIENCE_S: Final = 30.0


class ResultReceiver(port.ResultReceiver, Protocol):
    """The port, and an end to it."""

    async def close(self) -> None: ...


class Side(Protocol):
    """One world: a broker, two coordinators' ends of the log, one coordinator's and two nodes' ends of the bus."""

    logs: list[EventLog]
    signals: port.Signals
    node_signals: port.Signals
    work: port.WorkSender
    receivers: dict[str, port.WorkReceiver]
    results: dict[str, port.ResultSender]
    events: port.EventSender
    chunks: ChunkStore

    async def reopen_log(self, writer: int) -> None: ...

    async def set_log_full(self, *, full: bool) -> None: ...

    async def set_chunks_full(self, *, full: bool) -> None: ...

    def new_result_receiver(self) -> ResultReceiver: ...

    async def settle_results(self, acknowledged: int) -> None: ...

    async def settle_signals(self) -> None: ...

    async def cut(self) -> None: ...

    async def restart(self) -> None: ...


class FakeSide:
    """All of it in memory."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self._records = MemoryEventLog().store
        self._full = False
        self._connections = [self.broker.connect() for _ in range(2 + len(NODES))]
        self.logs: list[EventLog] = [MemoryEventLog(self._records) for _ in range(WRITERS)]
        coordinator = self._connections[0]
        self.signals: port.Signals = coordinator.signals()
        self.node_signals: port.Signals = self._connections[1].signals()
        self.work: port.WorkSender = coordinator.work_sender()
        nodes = dict(zip(NODES, self._connections[2:], strict=True))
        self.receivers: dict[str, port.WorkReceiver] = {node: nodes[node].work_receiver(node) for node in NODES}
        self.results: dict[str, port.ResultSender] = {node: nodes[node].result_sender() for node in NODES}
        self.events: port.EventSender = coordinator.event_sender()
        self._memory_chunks = MemoryChunks()
        self.chunks: ChunkStore = self._memory_chunks

    # -- what the script may know beforehand ---------------------------------------

    def waiting_work(self, node: str) -> int:
        """How many batches the node's receiver would be handed now."""
        queue = self.broker.work_queue(node)
        return len(queue.waiting) if queue is not None else 0

    # -- the side -------------------------------------------------------------------

    async def reopen_log(self, writer: int) -> None:
        await self.logs[writer].close()
        self.logs[writer] = MemoryEventLog(self._records)
        self._apply_room()

    async def set_log_full(self, *, full: bool) -> None:
        self._full = full
        self._apply_room()

    async def set_chunks_full(self, *, full: bool) -> None:
        self._memory_chunks.capacity_bytes = 0 if full else 1 << 40

    def new_result_receiver(self) -> ResultReceiver:
        return self._connections[0].result_receiver()

    async def settle_results(self, acknowledged: int) -> None:
        """At once."""

    async def settle_signals(self) -> None:
        """At once."""

    async def cut(self) -> None:
        for connection in self._connections:
            connection.disconnect()
        for connection in self._connections:
            connection.reconnect()

    async def restart(self) -> None:
        self.broker.restart()

    def _apply_room(self) -> None:
        for log in self.logs:
            assert isinstance(log, MemoryEventLog)
            log.capacity_records = len(self._records) if self._full else None


class RealServer:
    """A nats-server, fresh worlds on which cost a few streams each."""

    def __init__(self, directory: Path) -> None:
        self._embedded = EmbeddedServer(directory, port=0, nodes=NODES)
        self.running: RunningServer | None = None
        self._undo = contextlib.ExitStack()

    async def start(self) -> None:
        """Starts it; from then on reconnects are made at once, and no work comes again because a machine was slow."""
        connection, work = "hivefold.bus.connection", "hivefold.bus.work"
        bounds = (f"{connection}.RECONNECT_WAIT_MS", 5), (f"{connection}.RECONNECT_WAIT_MAX_MS", 20)
        for name, value in (*bounds, (f"{work}.WORK_ACK_WAIT_S", 3600.0)):
            self._undo.enter_context(patch(name, value))
        self.running = await self._embedded.start()

    async def stop(self) -> None:
        """Ends it."""
        self._undo.close()
        assert self.running is not None
        await self.running.stop()

    async def restart(self) -> None:
        """kill -9, and starts it again on what it had stored."""
        assert self.running is not None
        os.kill(self.running.pid, signal.SIGKILL)
        await self.running.wait()
        await self.running.stop()
        self.running = await self._embedded.start()

    @contextlib.asynccontextmanager
    async def world(self) -> AsyncIterator[RealSide]:
        """Empty streams and new connections."""
        side = RealSide(self)
        await side.open()
        try:
            yield side
        finally:
            await side.close()


class RealSide:
    """All of it on a nats-server; each node has a node's rights."""

    def __init__(self, server: RealServer) -> None:
        self._server = server
        self._links: list[Link] = []
        self.logs: list[EventLog] = []
        self.signals: port.Signals
        self.node_signals: port.Signals
        self.work: port.WorkSender
        self.receivers: dict[str, port.WorkReceiver]
        self.results: dict[str, port.ResultSender]
        self.events: port.EventSender
        self.chunks: ChunkStore

    async def open(self) -> None:
        running = self._server.running
        assert running is not None
        self._core, self._coordinator, second = [
            await self._connected(settings) for settings in (running.core, running.nodes, running.nodes)
        ]
        found = (await api.call(self._core, "STREAM.NAMES"))["streams"] or ()
        for link, names in ((self._core, found), (self._coordinator, _STREAMS)):
            for name in names:
                with contextlib.suppress(api.ApiError):
                    await api.call(link, f"STREAM.DELETE.{name}")
        await prepare_streams(self._coordinator)
        for _ in range(WRITERS):
            self.logs.append(await self._open_log())
        nodes = {node: await self._connected(await running.node(node)) for node in NODES}
        self._second = second
        self.signals, self.node_signals = NatsSignals(self._coordinator), NatsSignals(second)
        self.work = NatsWorkSender(self._coordinator)
        self.receivers = {node: NatsWorkReceiver(link, node) for node, link in nodes.items()}
        self.results = {node: NatsResultSender(link) for node, link in nodes.items()}
        self.events = NatsEventSender(self._coordinator)
        self.chunks = JetStreamChunks(self._coordinator)

    async def close(self) -> None:
        for log in self.logs:
            await log.close()
        for link in self._links:
            if not link.is_closed:
                await link.close()

    # -- the side -------------------------------------------------------------------

    async def reopen_log(self, writer: int) -> None:
        await self.logs[writer].close()
        self.logs[writer] = await self._open_log()

    async def set_log_full(self, *, full: bool) -> None:
        name = max((await api.call(self._core, "STREAM.NAMES"))["streams"])
        await self._limit(self._core, name, full=full)

    async def set_chunks_full(self, *, full: bool) -> None:
        await self._limit(self._coordinator, streams.BLOBS, full=full)

    def new_result_receiver(self) -> ResultReceiver:
        return NatsResultReceiver(self._coordinator)

    async def settle_results(self, acknowledged: int) -> None:
        """Waits until the server has taken the acknowledgements: it does so some time after they are sent."""
        if not acknowledged:
            return
        name = f"CONSUMER.INFO.{streams.RESULTS}.{streams.COORDINATOR}"

        async def taken() -> bool:
            return bool((await api.call(self._coordinator, name))["ack_floor"]["stream_seq"] >= acknowledged)

        await _until(taken)

    async def settle_signals(self) -> None:
        """What was published is with its receivers after a round trip at each end."""
        for link in (self._coordinator, self._second, self._coordinator):
            await link.flush()

    async def cut(self) -> None:
        async with self._reconnects():
            for link in self._open_links():
                link._transport._io_writer.transport.abort()  # type: ignore[union-attr]

    async def restart(self) -> None:
        async with self._reconnects():
            await self._server.restart()

    async def consumers(self) -> str:
        """What the server says of each consumer, for whoever looks into a difference."""
        told = []
        for stream in (streams.WORK, streams.RESULTS):
            with contextlib.suppress(api.ApiError, BrokerUnavailableError):
                listed = await api.call(self._coordinator, f"CONSUMER.LIST.{stream}")
                told += [
                    f"{stream}/{each['name']}: {each['num_pending']} to come, {each['num_ack_pending']} unanswered, "
                    f"{each['num_waiting']} requests wait, last delivered {each['delivered']['stream_seq']}"
                    for each in listed["consumers"]
                ]
        return "; ".join(told)

    # -- inside ---------------------------------------------------------------------

    async def _connected(self, settings: BrokerSettings) -> Link:
        link = await connect(settings, wait_s=_PATIENCE_S)
        self._links.append(link)
        return link

    async def _open_log(self) -> EventLog:
        assert self._server.running is not None
        return await open_log(await self._connected(self._server.running.core))

    async def _limit(self, link: Link, stream: str, *, full: bool) -> None:
        info = await api.call(link, f"STREAM.INFO.{stream}")
        most = max(1, info["state"]["messages"]) if full else -1
        await api.call(link, f"STREAM.UPDATE.{stream}", {**info["config"], "max_msgs": most})

    def _open_links(self) -> list[Link]:
        return [link for link in self._links if not link.is_closed]

    @contextlib.asynccontextmanager
    async def _reconnects(self) -> AsyncIterator[None]:
        """Whatever happens within, afterwards every connection was broken and is up again."""
        links = self._open_links()
        back: set[Link] = set()
        unhook = [link.on_reconnect(lambda link=link: back.add(link)) for link in links]  # type: ignore[misc]
        yield

        async def all_back() -> bool:
            return len(back) == len(links)

        await _until(all_back)
        for forget in unhook:
            forget()


_STREAMS: Final = (streams.WORK, streams.RESULTS, streams.EVENTS, streams.BLOBS)


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            with contextlib.suppress(BrokerUnavailableError):
                if await holds():
                    return
            await asyncio.sleep(0.002)

"""Work over the stream HF_WORK: one durable pull consumer for each node, named by its id.

Deliveries are not bounded (max_deliver -1): a bound would drop owed work at the broker, unrecorded. What
bounds a task that kills its nodes is the coordinator, which counts attempts and losses in the log; a
repeated delivery is harmless, for a node refuses attempts that it has seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from hivefold.bus import api, frames, streams
from hivefold.bus.link import Link, NoRespondersError
from hivefold.bus.pull import Pulled, Puller
from hivefold.bus.soon import Soon
from hivefold.errors import BrokerUnavailableError
from hivefold.limits import BROKER_ANSWER_S, WORK_ACK_WAIT_S

_NANOSECONDS: Final = 1_000_000_000
_ACK: Final = b"+ACK"
_IN_PROGRESS: Final = b"+WPI"
_GIVE_BACK: Final = b"-NAK"
_GONE: Final = frozenset({api.CONSUMER_MISSING, api.STREAM_MISSING})


class NatsWorkSender:
    """hivefold.bus.port.WorkSender."""

    def __init__(self, link: Link, settings: streams.StreamSettings | None = None) -> None:
        self._link = link
        self._settings = settings or streams.StreamSettings()
        self._prepared: set[str] = set()
        self._stale: set[str] = set()
        self._one_at_a_time = asyncio.Lock()
        """Between preparing and forgetting: else a node may count as prepared whose consumer was just deleted."""
        link.on_reconnect(self._reconnected)

    async def prepare(self, node_id: str) -> None:
        """Makes sure that the stream and the node's durable consumer exist.

        Raises ConfigError, BrokerUnavailableError.
        """
        async with self._one_at_a_time:
            await self._prepare(node_id)

    async def _prepare(self, node_id: str) -> None:
        try:
            await self._make_consumer(node_id)
        except (NoRespondersError, api.ApiError) as error:
            if isinstance(error, api.ApiError) and error.code != api.STREAM_MISSING:
                raise
            await streams.prepare_stream(self._link, streams.work_config(self._settings))
            await self._make_consumer(node_id)
        self._prepared.add(node_id)
        self._stale.discard(node_id)

    async def send(self, node_id: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Publishes one WorkBatch and waits until the stream has it. Raises BrokerUnavailableError."""
        await self._restore()
        if node_id not in self._prepared:
            await self.prepare(node_id)
        block = frames.header_block(headers) if headers else b""
        try:
            await self._store(node_id, data, block)
        except NoRespondersError:
            self._stale |= self._prepared
            await self._restore()
            await self._store(node_id, data, block)

    async def forget(self, node_id: str) -> None:
        """Drops the node's waiting work and its consumer. Raises BrokerUnavailableError."""
        async with self._one_at_a_time:
            await self._forget(node_id)

    async def _forget(self, node_id: str) -> None:
        self._prepared.discard(node_id)
        self._stale.discard(node_id)
        for name, body in (
            (f"CONSUMER.DELETE.{streams.WORK}.{node_id}", None),
            (f"STREAM.PURGE.{streams.WORK}", {"filter": f"work.{node_id}"}),
        ):
            try:
                await api.call(self._link, name, body)
            except api.ApiError as error:
                if error.code not in _GONE:
                    raise

    async def _store(self, node_id: str, data: bytes, headers: bytes) -> None:
        try:
            await api.store(self._link, f"work.{node_id}", data, headers=headers, timeout_s=BROKER_ANSWER_S)
        except api.ApiError as error:
            raise BrokerUnavailableError(
                f"the work stream refused a batch for {node_id}: {error.description}; it is sent again later"
            ) from None

    async def _make_consumer(self, node_id: str) -> None:
        config: dict[str, Any] = {
            "durable_name": node_id,
            "filter_subject": f"work.{node_id}",
            "ack_policy": "explicit",
            "ack_wait": int(WORK_ACK_WAIT_S * _NANOSECONDS),
            "max_deliver": -1,
            "max_ack_pending": -1,
            "mem_storage": True,
        }
        body = {"stream_name": streams.WORK, "config": config}
        await api.call(self._link, f"CONSUMER.DURABLE.CREATE.{streams.WORK}.{node_id}", body)

    async def _restore(self) -> None:
        """After a reconnect: a restarted server has forgotten the stream and all consumers."""
        for node_id in sorted(self._stale):
            async with self._one_at_a_time:
                if node_id in self._stale:  # others that send restore it, too
                    await self._prepare(node_id)

    def _reconnected(self) -> None:
        self._stale |= self._prepared


class NatsDelivery:
    """hivefold.bus.port.Delivery."""

    __slots__ = ("_link", "_message", "_settle")

    def __init__(self, link: Link, message: Pulled, settle: Callable[[bytes], None]) -> None:
        self._link = link
        self._message = message
        self._settle = settle

    @property
    def data(self) -> bytes:
        """The WorkBatch."""
        return self._message.data

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers, names in lower case."""
        return frames.parse_headers(self._message.headers)

    async def acknowledge(self) -> None:
        """Done: it will not come again, unless this is lost with the connection. Told within ACK_DELAY_MS."""
        self._settle(frames.publish(self._message.reply, _ACK))

    async def in_progress(self) -> None:
        """Still at it: starts the wait anew."""
        self._answer(_IN_PROGRESS)

    async def give_back(self) -> None:
        """Not done: it may come again at once."""
        self._answer(_GIVE_BACK)

    def _answer(self, verdict: bytes) -> None:
        try:
            self._link.write(frames.publish(self._message.reply, verdict))
        except BrokerUnavailableError:
            # Unanswered it comes again, which attempt numbers make harmless.
            return


class NatsWorkReceiver:
    """hivefold.bus.port.WorkReceiver."""

    def __init__(self, link: Link, node_id: str) -> None:
        self._link = link
        self._puller = Puller(link, streams.WORK, node_id)
        self._settled: list[bytes] = []
        self._soon = Soon(self._write_settled)

    async def deliveries(self) -> AsyncIterator[NatsDelivery]:
        """Yields deliveries until close()."""
        while batch := await self._puller.take():
            for message in batch:
                yield NatsDelivery(self._link, message, self._settle)

    async def close(self) -> None:
        """Ends the iteration. What was delivered and not answered comes again."""
        self._soon.now()
        await self._puller.close()

    def _settle(self, command: bytes) -> None:
        self._settled.append(command)
        self._soon.ask()

    def _write_settled(self) -> None:
        commands, self._settled = self._settled, []
        # Disconnected they are lost: what comes again is refused as a repeat.
        with contextlib.suppress(BrokerUnavailableError):
            self._link.write(b"".join(commands))

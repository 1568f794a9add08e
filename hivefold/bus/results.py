"""Outcomes over the stream HF_RESULTS: each subject holds one, the first; the coordinator reads in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Final

import structlog

from hivefold.bus import api, frames, streams
from hivefold.bus.batch import Outgoing, split, store_batch
from hivefold.bus.link import Link
from hivefold.bus.port import ResultMessage
from hivefold.bus.pull import Pulled, Puller
from hivefold.bus.soon import Soon
from hivefold.errors import BrokerUnavailableError
from hivefold.limits import (
    BROKER_ANSWER_S,
    RESULTS_ACK_WAIT_S,
    RESULTS_BATCH,
    RESULTS_CROWDED_PERCENT,
    RESULTS_IN_FLIGHT,
    RESULTS_SINGLES,
    RESULTS_UNACKNOWLEDGED,
)

_log = structlog.get_logger(__name__)
_NANOSECONDS: Final = 1_000_000_000
_FIRST_ONLY: Final = f"{api.EXPECT_NEW}: 0\r\n".encode()


class NatsResultSender:
    """hivefold.bus.port.ResultSender."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._slots = asyncio.Semaphore(RESULTS_IN_FLIGHT)

    async def send(self, outcomes: Sequence[tuple[str, bytes]]) -> None:
        """Stores the outcomes durably; keeps trying while the broker is away.

        Raises LimitExceededError for an outcome that is too large (nothing is stored then),
        BrokerUnavailableError once the connection is closed.
        """
        messages = [Outgoing(subject, data, _FIRST_ONLY) for subject, data in outcomes]
        # A server stages an atomic batch on disk first, which costs as much as several single messages.
        batches = list(split(messages, RESULTS_BATCH if len(messages) > RESULTS_SINGLES else 1))
        if len(batches) == 1:
            await self._keep_storing(batches[0])
            return
        await _all(self._keep_storing(batch) for batch in batches)

    async def _keep_storing(self, batch: Sequence[Outgoing]) -> None:
        async with self._slots:
            retry = api.Retry(self._link)
            while True:
                await retry.ready()
                try:
                    await self._store(batch)
                except (api.ApiError, BrokerUnavailableError) as error:
                    _log.warning("results.retry", outcomes=len(batch), error=error.message)
                else:
                    return
                await retry.pause()

    async def _store(self, batch: Sequence[Outgoing]) -> None:
        """Returns once every subject of the batch holds an outcome."""
        try:
            await store_batch(self._link, batch, BROKER_ANSWER_S)
        except api.ApiError as error:
            if error.code != api.WRONG_LAST:
                raise
            if len(batch) > 1:
                # Some subject has its outcome already; alone, each is taken or found taken.
                await _all(self._store([message]) for message in batch)


class NatsResultReceiver:
    """hivefold.bus.port.ResultReceiver: exactly in order, nothing left out.

    The consumer counts its deliveries. A gap in that count, a reconnect or a lost consumer starts a
    new consumer after the last acknowledged result; what was handed over already is passed over.
    """

    def __init__(
        self, link: Link, may_consume: Callable[[], bool] = lambda: True, *, stream: str = streams.RESULTS
    ) -> None:
        """`may_consume` is asked before a consumer is made anew: two coordinators must not take it from each other.

        `stream` is HF_RESULTS, or another one with one message a subject that a coordinator records in order.
        """
        self._link = link
        self._may_consume = may_consume
        self._stream = stream
        self._consumer = f"{stream}.{streams.COORDINATOR}"
        self._info = f"STREAM.INFO.{stream}"
        self._puller = Puller(link, stream, streams.COORDINATOR, rebind=self._make_consumer)
        self._expected = 1
        self._handed_over = 0
        self._acknowledged = -1
        """Position up to which all is recorded; -1 until the broker has told."""
        self._consuming = False
        """Whether outcomes come to this end: then it knows sooner than the broker what is recorded."""
        self._unacknowledged: deque[tuple[int, bytes]] = deque()
        self._owed = b""
        """Where the newest acknowledgement goes that is not sent yet."""
        self._soon = Soon(self._write_owed)

    async def batches(self) -> AsyncIterator[Sequence[ResultMessage]]:
        """Yields what has come since, in order, until close()."""
        while arrived := await self._puller.take():
            if fresh := self._in_order(arrived):
                yield fresh

    async def acknowledge(self, up_to_sequence: int) -> None:
        """Everything up to this position is recorded: it will not come again."""
        self._acknowledged = max(self._acknowledged, up_to_sequence)
        reply = b""
        while self._unacknowledged and self._unacknowledged[0][0] <= up_to_sequence:
            reply = self._unacknowledged.popleft()[1]
        if reply:
            # It stands for all before it too: the last of a moment is enough.
            self._owed = reply
            self._soon.ask()

    async def get(self, sequence: int) -> ResultMessage:
        """The outcome stored at a position. Raises NotFoundError, BrokerUnavailableError."""
        message = await api.message_at(self._link, self._stream, {"seq": sequence})
        return ResultMessage(message.sequence, message.subject, message.data)

    async def purge_job(self, job_id: str) -> None:
        """Drops the stored outcomes of a job, as far as they are acknowledged. Raises BrokerUnavailableError.

        JetStream takes what is purged for acknowledged, and with it, under this consumer's policy, all before it:
        outcomes of other jobs that are not recorded would not come again after a crash.
        """
        body = {"filter": f"results.*.{job_id}.>", "seq": await self._recorded() + 1}
        await api.call(self._link, f"STREAM.PURGE.{self._stream}", body)

    async def is_crowded(self) -> bool:
        """Whether little room is left for outcomes. Raises BrokerUnavailableError."""
        info = await api.call(self._link, self._info)
        most = int(info["config"].get("max_bytes", -1))
        return 0 < most * RESULTS_CROWDED_PERCENT <= int(info["state"]["bytes"]) * 100

    async def drop_oldest(self, before: int) -> int:
        """Drops a quarter, of what is acknowledged and before a position; how many. Raises BrokerUnavailableError."""
        recorded = await self._recorded()
        state = (await api.call(self._link, self._info))["state"]
        first = int(state["first_seq"])
        quarter = first + (int(state["last_seq"]) - first) // 4
        end = min(before, recorded + 1, quarter + 1)
        if end <= first:
            return 0
        return int((await api.call(self._link, f"STREAM.PURGE.{self._stream}", {"seq": end}))["purged"])

    async def close(self) -> None:
        """Ends batches()."""
        self._soon.now()
        await self._puller.close()

    def _in_order(self, arrived: Sequence[Pulled]) -> list[ResultMessage]:
        fresh: list[ResultMessage] = []
        for message in arrived:
            tries, stream_sequence, count = _positions(message.reply)
            if count != self._expected:
                _log.warning("results.gap", expected=self._expected, found=count)
                self._puller.unbind()
                break
            self._expected += 1
            if tries > 1:
                # The broker repeats what waits too long to be recorded: we still have it.
                continue
            self._unacknowledged.append((stream_sequence, message.reply))
            if stream_sequence > self._handed_over:
                self._handed_over = stream_sequence
                fresh.append(ResultMessage(stream_sequence, message.subject.decode(errors="replace"), message.data))
        return fresh

    async def _make_consumer(self) -> None:
        """Makes the consumer begin after the last acknowledged result.

        JetStream hands out again what an earlier process had received only after the ack wait, and
        then out of order. A crash between the two calls makes all stored results come again, which
        is harmless: the core knows their attempts.
        """
        if not self._may_consume():
            raise BrokerUnavailableError("another coordinator may lead by now: its consumer stays as it is")
        if self._acknowledged < 0:
            self._acknowledged = await self._recorded()
        state = (await api.call(self._link, self._info))["state"]
        if state["last_seq"] < max(self._acknowledged, self._handed_over):
            _log.error("results.stream_replaced", last=state["last_seq"], handed_over=self._handed_over)
            self._acknowledged = self._handed_over = 0
        try:
            await api.call(self._link, f"CONSUMER.DELETE.{self._consumer}")
        except api.ApiError as error:
            if error.code != api.CONSUMER_MISSING:
                raise
        config = {
            "durable_name": streams.COORDINATOR,
            "ack_policy": "all",
            "ack_wait": RESULTS_ACK_WAIT_S * _NANOSECONDS,
            "max_ack_pending": RESULTS_UNACKNOWLEDGED,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._acknowledged + 1,
        }
        body = {"stream_name": self._stream, "config": config}
        await api.call(self._link, f"CONSUMER.DURABLE.CREATE.{self._consumer}", body)
        self._consuming = True
        self._expected = 1
        self._unacknowledged.clear()
        self._owed = b""

    async def _recorded(self) -> int:
        """Position up to which all is recorded, asked for anew where another end than this one consumes."""
        if self._consuming:
            return self._acknowledged
        try:
            info = await api.call(self._link, f"CONSUMER.INFO.{self._consumer}")
        except api.ApiError as error:
            if error.code != api.CONSUMER_MISSING:
                raise
            return 0
        return int(info["ack_floor"]["stream_seq"])

    def _write_owed(self) -> None:
        owed, self._owed = self._owed, b""
        if owed:
            # Disconnected it need not go out: the reconnect starts a consumer after what is acknowledged.
            with contextlib.suppress(BrokerUnavailableError):
                self._link.write(frames.publish(owed, b"+ACK"))


async def _all(calls: Iterable[Awaitable[object]]) -> None:
    """Waits for all, then raises the first failure as it is."""
    for answer in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(answer, BaseException):
            raise answer


def _positions(reply: bytes) -> tuple[int, int, int]:
    """Tries, stream sequence and delivery count out of an acknowledgement subject, with or without a domain."""
    parts = reply.split(b".")
    first = 4 if len(parts) == 9 else 6
    return int(parts[first]), int(parts[first + 1]), int(parts[first + 2])

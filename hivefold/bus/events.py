"""The public event stream over HF_EVENTS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from hivefold.bus import api, streams
from hivefold.bus.batch import Outgoing, split, store_chain
from hivefold.bus.link import Link
from hivefold.errors import BrokerUnavailableError, NotFoundError
from hivefold.limits import EVENTS_BATCH

SEQUENCE_HEADER: Final = "Hivefold-Sequence"
"""Position of the record that an event was derived from."""

_log = structlog.get_logger(__name__)


class NatsEventSender:
    """hivefold.bus.port.EventSender."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def send(self, events: Sequence[tuple[str, bytes, int]]) -> None:
        """Stores events in order and keeps trying while the broker is away; some may be stored twice.

        One answer, to the last, stands for all: the stream makes room for new events and refuses none.

        Raises LimitExceededError for an event that is too large, BrokerUnavailableError once the
        connection is closed.
        """
        messages = [
            Outgoing(subject, data, f"{SEQUENCE_HEADER}: {sequence}\r\n".encode()) for subject, data, sequence in events
        ]
        for batch in split(messages, EVENTS_BATCH):
            await self._keep_storing(batch)

    async def last_sequence(self) -> int:
        """Record sequence of the last stored event; 0 when there is none. Raises BrokerUnavailableError."""
        try:
            message = await api.message_at(self._link, streams.EVENTS, {"last_by_subj": "events.>"})
        except NotFoundError:
            return 0
        return int(message.headers.get(SEQUENCE_HEADER.lower(), "0"))

    async def _keep_storing(self, batch: Sequence[Outgoing]) -> None:
        retry = api.Retry(self._link)
        while True:
            await retry.ready()
            try:
                await store_chain(self._link, batch)
            except (api.ApiError, BrokerUnavailableError) as error:
                _log.warning("events.retry", events=len(batch), error=error.message)
            else:
                return
            await retry.pause()

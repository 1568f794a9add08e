"""Signed checkpoints on the stream HF_CHECKPOINTS: written by the leader, read by every node."""

from __future__ import annotations

from typing import Final

from hivefold.bus import api, frames, streams
from hivefold.bus.link import Link
from hivefold.bus.port import Kept
from hivefold.errors import BrokerUnavailableError, FencedError, NotFoundError
from hivefold.limits import BROKER_ANSWER_S

SUBJECT: Final = "checkpoint.log"


class NatsCheckpoints:
    """hivefold.bus.port.CheckpointStream."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def last(self) -> Kept | None:
        """The last checkpoint; None when there is none. Raises BrokerUnavailableError."""
        return await self._get({"last_by_subj": SUBJECT})

    async def next(self, index: int) -> Kept | None:
        """The first one at `index` or after; None when there is none. Raises BrokerUnavailableError."""
        return await self._get({"seq": max(1, index), "next_by_subj": SUBJECT})

    async def store(self, data: bytes, *, after: int) -> int:
        """Stores a checkpoint right after the one at `after`; see CheckpointStream.store."""
        headers = frames.header_block({api.EXPECT_NEW: str(after)})
        try:
            return await api.store(self._link, SUBJECT, data, headers=headers, timeout_s=BROKER_ANSWER_S)
        except api.ApiError as error:
            if error.code != api.WRONG_LAST:
                raise BrokerUnavailableError(
                    f"a checkpoint cannot be stored: {error.message}; check the server"
                ) from error
        found = await self.last()
        if found is not None and found.data == data:
            return found.index  # an earlier try whose answer was lost
        raise FencedError("another coordinator signed a checkpoint; this one stops leading")

    async def _get(self, body: dict[str, object]) -> Kept | None:
        try:
            message = await api.message_at(self._link, streams.CHECKPOINTS, body)
        except NotFoundError:
            return None
        return Kept(message.sequence, message.data)

"""What was committed, handed to those who follow: watchers, the feed, dispatch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from coordinator.core.events import Event
from coordinator.core.model import State
from coordinator.replay import Replayed
from hivefold import limits
from hivefold.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class Committed:
    """One durable record and the state after it."""

    sequence: int
    term: int
    time_us: int
    events: tuple[Event, ...]
    traceparent: str
    state: State
    hash: bytes


class Followed(Protocol):
    """Where the log's state is read and followed: the writer of the term, or a standby."""

    @property
    def state(self) -> State:
        """The durable state, as far as it is known here."""
        ...

    @property
    def head_hash(self) -> bytes:
        """Hash of the last record of that state."""
        ...

    @property
    def folded(self) -> Replayed:
        """That state with all that a replay could go on from."""
        ...

    @property
    def folded_bytes(self) -> int:
        """Bytes of the records that led here, from record 1 or a snapshot on."""
        ...

    @property
    def ended(self) -> bool:
        """Whether nothing more will come from here."""
        ...

    def follow(self) -> Follower:
        """Follows what comes from now on."""
        ...

    def follow_after(self, sequence: int) -> Follower | None:
        """Follows what came after a position; None when only the log still has it."""
        ...


class FollowerLaggedError(UnavailableError):
    """The follower fell behind more than FOLLOWER_QUEUE records; read the log from its last position."""


class Follower:
    """An ordered, gapless run of commits from the moment it was made."""

    def __init__(self, followers: set[Follower]) -> None:
        self._followers = followers
        self._queue: asyncio.Queue[Committed | None] = asyncio.Queue(limits.FOLLOWER_QUEUE + 1)
        self._lagged = False

    def offer(self, committed: Committed) -> None:
        """Hands over one commit; called by the writer."""
        if self._lagged:
            return
        if self._queue.qsize() >= limits.FOLLOWER_QUEUE:
            self._lagged = True
            self._queue.put_nowait(None)
            return
        self._queue.put_nowait(committed)

    def end(self) -> None:
        """No more commits will come: the writer has stopped."""
        if not self._lagged:
            self._lagged = True
            self._queue.put_nowait(None)

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> Committed:
        committed = await self._queue.get()
        if committed is None:
            self.close()
            raise FollowerLaggedError("the follower fell behind or the writer stopped; read the log instead")
        return committed

    def close(self) -> None:
        """Stops following."""
        self._followers.discard(self)


class Followers:
    """All followers of one writer, and the last commits for those who come a little late."""

    def __init__(self) -> None:
        self._all: set[Follower] = set()
        self._recent: deque[Committed] = deque(maxlen=limits.RECENT_COMMITS)
        self._ended = False

    def follow(self) -> Follower:
        """A new follower of what is committed from now on."""
        follower = Follower(self._all)
        if self._ended:
            follower.end()
        else:
            self._all.add(follower)
        return follower

    def follow_after(self, sequence: int) -> Follower | None:
        """A new follower of what was committed after a position; None when that is too long ago."""
        if not self._recent or self._recent[0].sequence > sequence + 1:
            return None
        follower = self.follow()
        for committed in self._recent:
            if committed.sequence > sequence:
                follower.offer(committed)
        return follower

    def offer(self, commits: Sequence[Committed]) -> None:
        """Hands commits to every follower."""
        self._recent.extend(commits)
        for follower in tuple(self._all):
            for committed in commits:
                follower.offer(committed)

    def end(self) -> None:
        """Ends every follower, those to come too."""
        self._ended = True
        for follower in tuple(self._all):
            follower.end()

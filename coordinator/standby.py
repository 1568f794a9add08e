"""Follows the log while another coordinator leads: taking over is then a few records away. Serves reads meanwhile."""

from __future__ import annotations

import asyncio

import structlog

from coordinator.core.model import State
from coordinator.followers import Committed, Follower, FollowerLaggedError, Followers
from coordinator.replay import Replayed, Replayer
from hivefold import limits
from hivefold.clock import Clock
from hivefold.errors import BrokerUnavailableError, NotLeaderError, Reason, UnavailableError
from hivefold.log.port import EventLog, Stored

_log = structlog.get_logger(__name__)


class Standby:
    """The fold of the log, kept up to date. Hints only wake it: what it folds is read from the log, in order."""

    def __init__(self, log: EventLog, clock: Clock, start: Replayed) -> None:
        self._log = log
        self._clock = clock
        self._state, self._head_hash = start.state, start.head_hash
        self._replayer = Replayer(start)
        self._followers = Followers()
        self._wake = asyncio.Event()
        self._end = start.state.sequence
        self._current_ms = clock.monotonic_ms()
        self._ended = False
        self._folded_bytes = start.folded_bytes

    @property
    def state(self) -> State:
        """The state as far as it was followed."""
        return self._state

    @property
    def head_hash(self) -> bytes:
        """Hash of the last record that was followed."""
        return self._head_hash

    @property
    def folded(self) -> Replayed:
        """What a take-over or a snapshot starts from."""
        return self._replayer.folded()

    @property
    def folded_bytes(self) -> int:
        """Bytes of the records that led here, from record 1 or a snapshot on."""
        return self._folded_bytes

    @property
    def ended(self) -> bool:
        """Whether nothing is followed any more."""
        return self._ended

    @property
    def end_sequence(self) -> int:
        """The log's end as far as it is known."""
        return max(self._end, self.state.sequence)

    @property
    def stale_ms(self) -> int:
        """How long ago this state was known to be the log's whole."""
        return self._clock.monotonic_ms() - self._current_ms

    def follow(self) -> Follower:
        """Follows what comes from now on."""
        return self._followers.follow()

    def follow_after(self, sequence: int) -> Follower | None:
        """Follows what came after a position; None when only the log still has it."""
        return self._followers.follow_after(sequence)

    def nudge(self) -> None:
        """There may be new records."""
        self._wake.set()

    async def run(self) -> None:
        """Follows until it is cancelled. Raises LogCorruptError with the position of a record that does not fit."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self.catch_up()
                except BrokerUnavailableError as error:
                    _log.warning("log not followed, trying again", error=str(error), sequence=self.state.sequence)
                await asyncio.sleep(limits.STANDBY_PAUSE_S)
                await self._until_nudged()
        finally:
            self._ended = True
            self._followers.end()

    async def reach(self, sequence: int) -> None:
        """Waits until this state holds the record at `sequence`, or the log turns out to end before it.

        Raises UnavailableError when that takes too long, NotLeaderError when nothing is followed any more.
        """
        try:
            async with asyncio.timeout(limits.STANDBY_REACH_S):
                while self.state.sequence < sequence and await self._goes_on(sequence):
                    pass
        except TimeoutError:
            raise UnavailableError(
                f"this standby is at record {self.state.sequence} and has not reached {sequence}; ask the leader",
                reason=Reason.NOT_LEADER,
            ) from None

    async def _goes_on(self, sequence: int) -> bool:
        """Waits as `reach` does, or until more came at once than is kept for followers; False past the log's end."""
        follower = self.follow()  # before the end is asked for: no record that comes meanwhile is missed
        try:
            if sequence > self._end and sequence > (await self._log.head()).sequence:
                return False
            self.nudge()
            while self.state.sequence < sequence:
                await anext(follower)
        except FollowerLaggedError:
            if self._ended:
                raise NotLeaderError("this coordinator no longer follows; ask again") from None
        finally:
            follower.close()
        return True

    async def reach_end(self) -> None:
        """Waits until this state holds all that is in the log now. Raises as `reach`, and BrokerUnavailableError."""
        await self.reach((await self._log.head()).sequence)

    async def catch_up(self) -> None:
        """Folds up to the log's end as it is now. Raises LogCorruptError, BrokerUnavailableError."""
        asked_ms = self._clock.monotonic_ms()
        self._end = (await self._log.head()).sequence
        if self._end > self.state.sequence:
            async for page in self._log.read(after=self.state.sequence, up_to=self._end):
                for stored in page:
                    self._fold(stored)
                await asyncio.sleep(0)  # a long way to go: others want to be served meanwhile
        self._current_ms = asked_ms

    def _fold(self, stored: Stored) -> None:
        record, state = self._replayer.step(stored)
        self._state, self._head_hash = state, record.hash
        self._folded_bytes += len(stored.data)
        self._followers.offer(
            [
                Committed(
                    record.sequence, record.term, record.time_us, record.events, record.traceparent, state, record.hash
                )
            ]
        )

    async def _until_nudged(self) -> None:
        try:
            async with asyncio.timeout(limits.STANDBY_POLL_S):
                await self._wake.wait()
        except TimeoutError:
            return

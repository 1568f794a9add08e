"""One coordinator of a group: a standby until it holds the lease, the leader while it does, then a standby again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from coordinator.hand_over import HandedOverError, HandOver
from coordinator.lead import Ends, Leadership, LeadSettings, take_lead
from coordinator.replay import Replayed
from coordinator.standby import Standby
from hivefold import limits
from hivefold.clock import Clock
from hivefold.entropy import Entropy
from hivefold.errors import AppendUnresolvedError, FencedError, NotLeaderError, UnavailableError
from hivefold.lease.campaign import Campaign
from hivefold.lease.tenure import Tenure
from hivefold.log.port import EventLog

_log = structlog.get_logger(__name__)
_STEP_DOWN = (UnavailableError, FencedError, AppendUnresolvedError)
"""After these another coordinator may lead, or a replay tells: this one follows again. Any other ends the process."""


class Stage(Protocol):
    """Who answers calls: is told whether this coordinator follows or leads."""

    def follow(self, standby: Standby) -> None:
        """It follows."""
        ...

    def lead(self, lead: Leadership) -> None:
        """It leads."""
        ...


@asynccontextmanager
async def no_hints(_nudge: Callable[[], None]) -> AsyncIterator[None]:
    """A standby without hints looks for records from time to time."""
    yield


@dataclass(slots=True)
class Member:
    """A member of the group. `open_ends` gives the bus of one term; leaving it lets go of all that belongs to it.

    Within `hints` a standby is nudged when somebody appends.
    """

    log: EventLog
    campaign: Campaign
    open_ends: Callable[[], AbstractAsyncContextManager[Ends]]
    clock: Clock
    entropy: Entropy
    settings: LeadSettings
    stage: Stage
    hints: Callable[[Callable[[], None]], AbstractAsyncContextManager[None]] = no_hints
    _standby: Standby | None = field(default=None)
    _term: tuple[Leadership, Ends, Tenure] | None = field(default=None)
    _hand_over: HandOver | None = field(default=None)

    @property
    def healthy(self) -> bool:
        """Whether this coordinator can do what it is there for: lead, or follow closely."""
        if self._term is not None:
            lead, ends, _ = self._term
            return lead.writer.leading and ends.signals.connected
        return self._standby is not None and self._standby.stale_ms < limits.STANDBY_STALE_MS

    @property
    def tenure(self) -> Tenure | None:
        """The lease while this coordinator leads."""
        return self._term[2] if self._term is not None else None

    async def hand_over(self) -> None:
        """Ends the term of this coordinator, which goes on as a standby; returns once that term is over.

        Others lead first; where there are none, this one leads again. Raises NotLeaderError when it does not lead.
        """
        if self._term is None or self._hand_over is None:
            raise NotLeaderError("this coordinator does not lead: ask the one that does")
        await self._hand_over.ask()

    async def run(self, start: Replayed, stop: asyncio.Event) -> None:
        """Follows and leads until `stop` is set; a leader then hands over.

        Raises LogCorruptError with the position where the log does not read as written; other errors, in a
        group too, are defects or a broker that was changed under the coordinator.
        """
        rest_s = 0.0
        while True:
            self._standby = Standby(self.log, self.clock, start)
            self.stage.follow(self._standby)
            tenure = await self._follow(self._standby, stop, rest_s)
            if tenure is None:
                return
            hand_over = self._hand_over = HandOver(stop)
            try:
                start = await self._lead(self._standby.folded, tenure, hand_over, stop)
            finally:
                self._term = self._hand_over = None
                await tenure.release()
                hand_over.end()
            if stop.is_set():
                return
            rest_s = limits.HAND_OVER_REST_S if hand_over.asked else limits.LEAD_AGAIN_S

    async def _follow(self, standby: Standby, stop: asyncio.Event, rest_s: float) -> Tenure | None:
        """Follows until the lease is won; None when told to stop before."""
        async with self.hints(standby.nudge):
            following = asyncio.create_task(standby.run())
            winning = asyncio.create_task(self.campaign.win(rest_s))
            tasks = (following, winning, asyncio.create_task(stop.wait()))
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        if not following.cancelled() and (error := following.exception()) is not None:
            raise error
        return None if winning.cancelled() else winning.result()

    async def _lead(self, start: Replayed, tenure: Tenure, hand_over: HandOver, stop: asyncio.Event) -> Replayed:
        """Leads until another does, the log gives no answer or `stop` is set; what a standby goes on from."""
        # A task of its own: where a part fails and the whole is cancelled, a task group tells of the failure alone.
        leading = asyncio.create_task(self._lead_term(start, tenure, hand_over))
        try:
            await asyncio.wait({leading})
        finally:
            leading.cancel()
            await asyncio.gather(leading, return_exceptions=True)
        if (error := leading.exception()) is not None:
            known = [leaf for leaf in leaves(error) if not isinstance(leaf, HandedOverError)]
            if not all(isinstance(leaf, _STEP_DOWN) for leaf in known):
                raise error
            if known and not stop.is_set():
                _log.warning("stepping down", error=str(known[0]), term=self._term and self._term[0].writer.state.term)
        if self._term is None:
            return start
        return self._term[0].writer.folded

    async def _lead_term(self, start: Replayed, tenure: Tenure, hand_over: HandOver) -> None:
        """Leads until a part of the term ends. Raises what ended it, in a group, too."""
        async with self.open_ends() as ends, asyncio.TaskGroup() as group:
            group.create_task(tenure.run())
            lead = await take_lead(ends, self.clock, self.entropy, self.settings, start=start, may_act=tenure.valid)
            tenure.on_lapse = lead.writer.doubt
            tenure.lead(lead.writer.state.term)
            self._term = (lead, ends, tenure)
            self.stage.lead(lead)
            for part in lead.parts():
                group.create_task(part)
            group.create_task(hand_over.run(lead, tenure))


def leaves(error: BaseException) -> list[BaseException]:
    """The errors of a group."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]

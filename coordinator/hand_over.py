"""The orderly end of a term: because the process is told to stop, or because an operator wants another to lead."""

from __future__ import annotations

import asyncio

import structlog

from coordinator.lead import Leadership
from hivefold import limits
from hivefold.errors import HivefoldError
from hivefold.lease.tenure import Tenure

_log = structlog.get_logger(__name__)


class HandedOverError(Exception):
    """The term was handed over: nothing went wrong."""


class HandOver:
    """One term's. `run` is a part of the term and ends it with HandedOverError."""

    def __init__(self, stop: asyncio.Event) -> None:
        """`stop` is set when the process is told to stop."""
        self._stop = stop
        self._asked = asyncio.Event()
        self._over = asyncio.Event()

    @property
    def asked(self) -> bool:
        """Whether an operator asked for it: then this coordinator stays, and lets the others go first."""
        return self._asked.is_set()

    async def ask(self) -> None:
        """Has the term end, and returns once it has, however it ended."""
        self._asked.set()
        await self._over.wait()

    def end(self) -> None:
        """The term is over."""
        self._over.set()

    async def run(self, lead: Leadership, tenure: Tenure) -> None:
        """Once told to: ends the term and lets the lease go, so that a standby leads at once."""
        reasons = {asyncio.create_task(self._stop.wait()), asyncio.create_task(self._asked.wait())}
        try:
            await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for reason in reasons:
                reason.cancel()
        note = "the coordinator was told to stop" if self._stop.is_set() else "an operator had another one lead"
        try:
            async with asyncio.timeout(limits.HAND_OVER_S):
                await lead.writer.end_term(note)
                if lead.checkpoints is not None:
                    await lead.checkpoints.seal()
        except (HivefoldError, TimeoutError) as error:
            _log.warning("the term was not ended", error=str(error))
        await tenure.release()
        raise HandedOverError

"""Keeps room for outcomes: the oldest outputs of ended jobs go before nodes could store no more."""

from __future__ import annotations

import asyncio
import sys

import structlog

from coordinator.core.model import State
from coordinator.writer import Writer
from hivefold import limits
from hivefold.bus.port import ResultReceiver
from hivefold.errors import HivefoldError

_log = structlog.get_logger(__name__)


class ResultRoom:
    """Looks from time to time. What an open job has made stays, however old, and what is not recorded yet."""

    def __init__(self, writer: Writer, results: ResultReceiver) -> None:
        self._writer = writer
        self._results = results

    async def run(self) -> None:
        """Looks until it is cancelled."""
        while True:
            await asyncio.sleep(limits.RESULTS_ROOM_S)
            try:
                await self.look()
            except HivefoldError as error:
                _log.warning("room for outcomes not looked at, trying again", reason=error.reason, error=str(error))

    async def look(self) -> None:
        """Drops the oldest where little room is left. Raises BrokerUnavailableError."""
        if not await self._results.is_crowded():
            return
        needed = await asyncio.to_thread(first_needed, self._writer.state)
        dropped = await self._results.drop_oldest(needed)
        _log.warning("little room for outcomes: the oldest outputs of ended jobs are dropped", outcomes=dropped)


def first_needed(state: State) -> int:
    """Position of the first outcome of an open job; those that came as a signal have none, nor output to keep."""
    jobs = (state.jobs[job_id] for job_id in state.open_jobs)
    positions = (done.result_sequence for job in jobs for done in job.done.values())
    return min(filter(None, positions), default=sys.maxsize)

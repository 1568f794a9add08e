"""Shreds the keys of erased jobs: after the record, again after a failure, again after a start."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import structlog

from coordinator.core.events import JobErased
from coordinator.core.model import Erasure
from coordinator.followers import Committed
from coordinator.writer import Writer
from hivefold import limits
from hivefold.blobs.keys import KeyStore
from hivefold.bus.port import ResultReceiver
from hivefold.errors import HivefoldError

_log = structlog.get_logger(__name__)


class Eraser:
    """Level-triggered: what the log calls erased and may still have a key is shredded until that went well."""

    def __init__(self, writer: Writer, keys: KeyStore, results: ResultReceiver) -> None:
        self._keys = keys
        self._results = results
        self._waiting: deque[Erasure] = deque(writer.state.erasures, maxlen=limits.ERASURES_KEPT)
        self._wake = asyncio.Event()
        self._wake.set()
        writer.on_commit(self._on_commit)

    async def run(self) -> None:
        """Shreds what waits, for ever; what fails is tried again."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                erasure = self._waiting.popleft()
                try:
                    await shred(erasure, self._keys, self._results)
                except HivefoldError as error:
                    _log.warning("keys not shredded, trying again", reason=error.reason, error=str(error))
                    self._waiting.append(erasure)
                    await asyncio.sleep(limits.RESEND_DELAY_S)

    def _on_commit(self, commits: Sequence[Committed]) -> None:
        for committed in commits:
            for event in committed.events:
                if isinstance(event, JobErased):
                    self._waiting.append(Erasure(event.job_id, committed.time_us, event.key_ids))
                    self._wake.set()


async def shred(erasure: Erasure, keys: KeyStore, results: ResultReceiver) -> None:
    """Makes sure that the keys of an erasure, and the job's outcomes, are gone. Raises BrokerUnavailableError."""
    for key_id in erasure.key_ids:
        await keys.shred(key_id)
    await results.purge_job(erasure.job_id)

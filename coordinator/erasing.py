"""Shreds the keys of erased jobs: after the record, again after a failure or a start, until that is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from coordinator.core.commands import ConfirmKeysShredded
from coordinator.core.erased import owed_erasures
from coordinator.core.model import Erasure
from coordinator.followers import Committed
from coordinator.writer import Writer
from hivefold import limits
from hivefold.blobs.keys import KeyStore
from hivefold.bus.port import ResultReceiver
from hivefold.errors import HivefoldError, LogError, NotLeaderError
from hivefold.ids import JobId

_log = structlog.get_logger(__name__)


class Eraser:
    """Level-triggered: what the state calls erased and not shredded is shredded until that is recorded."""

    def __init__(self, writer: Writer, keys: KeyStore, results: ResultReceiver) -> None:
        self._writer = writer
        self._keys = keys
        self._results = results
        self._wake = asyncio.Event()
        self._wake.set()
        writer.on_commit(self._on_commit)

    async def run(self) -> None:
        """Shreds what is owed, for ever; what fails is tried again. Raises NotLeaderError, LogError."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while owed_erasures(self._writer.state):
                # Whoever asked for it does it at once: here is what did not go well.
                await asyncio.sleep(limits.RESEND_DELAY_S)
                await self._shred(owed_erasures(self._writer.state))

    async def shred(self, erasure: Erasure) -> None:
        """Makes sure that an erased job's data are gone, and has it recorded. Raises HivefoldError."""
        await self._remove(erasure)
        await self._writer.execute(ConfirmKeysShredded((erasure.job_id,)))

    async def _shred(self, erasures: Sequence[Erasure]) -> None:
        """Each by itself: one that fails holds up no other, and stays owed."""
        done: list[JobId] = []
        failed: HivefoldError | None = None
        try:
            for erasure in erasures:
                try:
                    await self._remove(erasure)
                    done.append(erasure.job_id)
                except HivefoldError as error:
                    failed = error
            if done:
                await self._writer.execute(ConfirmKeysShredded(tuple(done)))
        except (NotLeaderError, LogError):
            raise
        except HivefoldError as error:
            failed = error
        if failed is not None:
            owed = len(owed_erasures(self._writer.state))
            _log.warning("keys not shredded, trying again", owed=owed, reason=failed.reason, error=str(failed))

    async def _remove(self, erasure: Erasure) -> None:
        for key_id in erasure.key_ids:
            await self._keys.shred(key_id)
        await self._results.purge_job(erasure.job_id)

    def _on_commit(self, commits: Sequence[Committed]) -> None:
        if any(not erasure.shredded for erasure in commits[-1].state.erasures):
            self._wake.set()

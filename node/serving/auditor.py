"""Puts what was noted into batches, off the requests' way, and sees that each gets to the broker once.

A batch is on disk before it is sent, and until the stream has it: what a kill of the node loses is what came since
the last one. The stream takes each (boot, number) once, so that sending again is harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from hivefold.bus.port import ResultSender
from hivefold.clock import Clock, give_way
from hivefold.entropy import Entropy
from hivefold.errors import LimitExceededError
from hivefold.oip.digests import SALT_BYTES
from hivefold.oip.limits import AUDIT_BATCH_WINDOWS, AUDIT_CLOSE_S, AUDIT_SLICE, AUDIT_WINDOW_S
from node.serving.audit import Ledger, Noted, Windows
from node.serving.audit_sheet import Sheet, batch_of
from node.serving.audit_spool import Kept, Spool

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Auditor:
    """One boot's auditor. After `run` was cancelled, `close` puts the rest into a last batch."""

    node_id: str
    boot_id: str
    ledger: Ledger
    spool: Spool
    sender: ResultSender
    clock: Clock
    entropy: Entropy
    _sheet: Sheet | None = None
    _number: int = 0
    _failing: bool = False
    _closing: bool = False
    _crowded: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: tuple[asyncio.Task[None], ...] = ()

    async def run(self) -> None:
        """Works for ever; its tasks outlive a cancellation until `close`."""
        self.ledger.on_crowd = self._crowded.set
        self._tasks = (asyncio.create_task(self._record()), asyncio.create_task(self._send()))
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def close(self) -> None:
        """Puts the rest into a batch, and sends what it can within AUDIT_CLOSE_S; the next boot sends what is left."""
        if not self._tasks:
            return
        recording, sending = self._tasks
        self._closing = True
        self._crowded.set()
        await asyncio.wait((recording,))
        try:
            async with asyncio.timeout(AUDIT_CLOSE_S):
                while self.spool.first is not None and not sending.done():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            _log.warning("audit.left_behind", directory=str(self.spool.directory))
        sending.cancel()
        await asyncio.wait((sending,))

    async def _record(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + AUDIT_WINDOW_S
        while not self._closing:
            try:
                async with asyncio.timeout_at(due):
                    await self._crowded.wait()
            except TimeoutError:
                due = max(due + AUDIT_WINDOW_S, loop.time())
                await self._digest()
                await self._seal()
            else:
                self._crowded.clear()
                await self._digest()
        await self._digest()
        await self._seal()

    async def _digest(self) -> None:
        """Digests the requests that wait. What no batch could take is counted and let go."""
        noted = self.ledger.take_noted()
        if self.spool.full or self._failing:
            for each in noted:
                self.ledger.window(each.audited).unrecorded += 1
            return
        while noted:
            sheet = self._sheet = self._sheet or Sheet(self.entropy.draw(SALT_BYTES))
            part, noted = noted[: sheet.room], noted[sheet.room :]
            await asyncio.to_thread(_add, sheet, part)
            if not sheet.room:
                await self._seal()

    async def _seal(self) -> None:
        """Makes batches of the windows so far and of the requests that were digested."""
        taken = self.ledger.take_windows(self.clock.now_us())
        sheet, self._sheet = self._sheet, None
        while taken.windows or sheet is not None:
            part = taken._replace(windows=taken.windows[:AUDIT_BATCH_WINDOWS])
            if self.spool.full or not await self._keep(part, sheet):
                break
            taken, sheet = taken._replace(windows=taken.windows[AUDIT_BATCH_WINDOWS:]), None
        if sheet is not None:
            for audited, count in sheet.counts().items():
                self.ledger.window(audited).unrecorded += count
        if taken.windows:
            self.ledger.give_back(taken)

    async def _keep(self, part: Windows, sheet: Sheet | None) -> bool:
        """Puts a batch on disk; whether that went well."""
        number = self._number + 1
        try:
            kept = await asyncio.to_thread(self._write, number, part, sheet)
        except OSError as error:
            if not self._failing:
                _log.exception("audit.disk_failed", error=str(error))
            self._failing = True
            return False
        self._failing = False
        self._number = number
        self.spool.add(kept)
        self._changed.set()
        return True

    def _write(self, number: int, part: Windows, sheet: Sheet | None) -> Kept:
        batch = batch_of(self.node_id, self.boot_id, number, part, sheet)
        return self.spool.write(self.boot_id, number, batch.SerializeToString())

    async def _send(self) -> None:
        while True:
            kept = self.spool.first
            if kept is None:
                self._changed.clear()
                await self._changed.wait()
                continue
            try:
                data = await asyncio.to_thread(kept.path.read_bytes)
                await self.sender.send([(f"inference.{self.node_id}.{kept.boot_id}.{kept.number}", data)])
            except (OSError, LimitExceededError) as error:
                # Its number is missing from then on: readers see the gap.
                _log.exception("audit.batch_lost", file=str(kept.path), error=str(error))
            self.spool.pop()
            with contextlib.suppress(OSError):  # what stays is sent once more by the next boot, and refused
                await asyncio.to_thread(kept.path.unlink)
            self._changed.set()


def _add(sheet: Sheet, noted: Sequence[Noted]) -> None:
    """In a thread: others get the interpreter in between, or the loop would wait its whole switch interval for it."""
    for start in range(0, len(noted), AUDIT_SLICE):
        sheet.add(noted[start : start + AUDIT_SLICE])
        give_way()

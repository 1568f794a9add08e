"""Holding the lease: renewed while it is held, and never believed for longer than is safe."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from hivefold.clock import Clock
from hivefold.errors import BrokerUnavailableError, LeaseLostError
from hivefold.lease.port import Holder, Lease
from hivefold.limits import LEASE_POLL_MS

_log = structlog.get_logger(__name__)


class Tenure:
    """A lease that was claimed. `valid` MUST be asked before each act that only a leader may do."""

    def __init__(self, lease: Lease, clock: Clock, holder: Holder, revision: int, claimed_ms: int) -> None:
        """`claimed_ms` is the monotonic time at which the claim was sent: the broker counts from later on."""
        self._lease = lease
        self._clock = clock
        self._holder = holder
        self._revision = revision
        self._renewed_ms = claimed_ms
        self._safe_ms = lease.ttl_ms * 5 // 6
        self._renew_s = lease.ttl_ms / 3000
        self._over = False
        self._due = asyncio.Event()
        self._claiming = asyncio.Lock()
        self.on_lapse: Callable[[], None] = lambda: None
        """Called when a lease that had lapsed is taken back: meanwhile another may have held it, and led."""

    def valid(self) -> bool:
        """Whether nobody else can hold the lease yet, however long this process was stopped or asleep."""
        return not self._over and self._clock.monotonic_ms() - self._renewed_ms < self._safe_ms

    @property
    def holder(self) -> Holder:
        """Who holds it."""
        return self._holder

    def lead(self, term: int) -> None:
        """Tells the others the term, soon."""
        self._holder = replace(self._holder, term=term)
        self._due.set()

    async def run(self) -> None:
        """Renews until it is cancelled. Raises LeaseLostError once another holds the lease."""
        while True:
            try:
                async with asyncio.timeout(self._renew_s):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            try:
                await self._renew()
            except BrokerUnavailableError as error:
                # Whether this one took place does not matter: the next look tells.
                _log.warning("lease not renewed", error=str(error), valid=self.valid())
                await self._find_out()
                # A broker may refuse at once, and go on to for as long as its disk is full.
                await asyncio.sleep(LEASE_POLL_MS / 1000)

    async def release(self) -> None:
        """Gives the lease up, so that another may claim it at once; it lapses anyway when this fails. Idempotent."""
        if self._over:
            return
        self._over = True
        # A renewal under way changes the revision: letting go with the one before would leave the lease as it is.
        async with self._claiming:
            try:
                try:
                    await self._lease.claim(None, revision=self._revision)
                except LeaseLostError:
                    await self._release_what_is_there()
            except (BrokerUnavailableError, LeaseLostError) as error:
                _log.warning("lease not released", error=str(error))

    async def _release_what_is_there(self) -> None:
        """Gives up one's own claim whose answer nobody waited for. Raises LeaseLostError, BrokerUnavailableError."""
        standing = await self._lease.look()
        if standing.holder is not None and standing.holder.token == self._holder.token:
            await self._lease.claim(None, revision=standing.revision)

    async def _renew(self) -> None:
        async with self._claiming:
            if self._over:
                return
            sent_ms = self._clock.monotonic_ms()
            try:
                self._revision = await self._lease.claim(self._holder, revision=self._revision)
            except LeaseLostError:
                await self._find_out()
            else:
                self._renewed_ms = sent_ms

    async def _find_out(self) -> None:
        """Takes the revision of a claim of one's own whose answer was lost, or of a lease that lapsed unclaimed."""
        try:
            standing = await self._lease.look()
        except BrokerUnavailableError:
            return
        holder = standing.holder
        if holder is not None and holder.token != self._holder.token:
            self._over = True
            raise LeaseLostError(
                f"{holder.coordinator_id} holds the lease now; this coordinator stops leading",
                metadata={"leader": holder.address},
            )
        if holder is None:
            self.on_lapse()
        self._revision = standing.revision
        self._due.set()

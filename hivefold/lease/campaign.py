"""Waiting for the lease, and taking it."""

from __future__ import annotations

import asyncio

import structlog

from hivefold.clock import Clock
from hivefold.errors import BrokerUnavailableError, LeaseLostError
from hivefold.lease.port import Holder, Lease, Standing
from hivefold.lease.tenure import Tenure
from hivefold.limits import LEASE_GONE_MS, LEASE_POLL_MS

_log = structlog.get_logger(__name__)


class Campaign:
    """A coordinator's view of the lease, whether it follows or leads."""

    def __init__(self, lease: Lease, clock: Clock, candidate: Holder) -> None:
        self._lease = lease
        self._clock = clock
        self._candidate = candidate
        self._standing = Standing(0, None)
        self._gone_since_ms: int | None = None
        self._attending = False
        self._wake = asyncio.Event()
        lease.on_change(self._wake.set)

    @property
    def leader(self) -> Holder | None:
        """Who held the lease when it was last looked at."""
        return self._standing.holder

    async def win(self, rest_s: float = 0.0) -> Tenure:
        """Waits until the lease is free, or its holder has died, and claims it; for ever while the broker is away.

        For the first `rest_s` seconds it looks who leads and leaves the lease to others.
        """
        rests_until_ms = self._clock.monotonic_ms() + int(rest_s * 1000)
        while True:
            self._wake.clear()
            try:
                if not self._attending:
                    await self._lease.attend(self._candidate)
                    self._attending = True
                tenure = await self._attempt(rests_until_ms)
            except BrokerUnavailableError as error:
                _log.warning("lease not seen", error=str(error))
                self._gone_since_ms = None
            else:
                if tenure is not None:
                    return tenure
            try:
                async with asyncio.timeout(LEASE_POLL_MS / 1000):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _attempt(self, rests_until_ms: int) -> Tenure | None:
        """Looks once and claims where that may be done. Raises BrokerUnavailableError."""
        standing = self._standing = await self._lease.look()
        if self._clock.monotonic_ms() < rests_until_ms:
            return None
        if standing.holder is not None and not await self._is_vacant(standing.holder):
            return None
        sent_ms = self._clock.monotonic_ms()
        try:
            revision = await self._lease.claim(self._candidate, revision=standing.revision)
        except LeaseLostError:
            return None
        self._standing = Standing(revision, self._candidate)
        return Tenure(self._lease, self._clock, self._candidate, revision, sent_ms)

    async def _is_vacant(self, holder: Holder) -> bool:
        """Whether the holder has died, as far as the broker can tell: waiting for its lease to lapse costs seconds."""
        if holder.token == self._candidate.token:
            return True  # this process's own, from before it stopped leading
        if not await self._lease.is_gone(holder):
            self._gone_since_ms = None
            return False
        if (holder.coordinator_id, holder.address) == (self._candidate.coordinator_id, self._candidate.address):
            return True  # this coordinator's own, from before it was started again
        now_ms = self._clock.monotonic_ms()
        if self._gone_since_ms is None:
            self._gone_since_ms = now_ms
        return now_ms - self._gone_since_ms >= LEASE_GONE_MS

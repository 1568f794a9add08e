"""The lease in memory: for tests and the simulation. Proved against the real one by tests/conformance/test_lease.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from hivefold.clock import Clock
from hivefold.errors import BrokerUnavailableError, LeaseLostError
from hivefold.lease.port import Holder, Standing


@dataclass(slots=True)
class LeaseStore:
    """The broker's side: what every coordinator's lease shares. `clock` is the broker's."""

    clock: Clock
    ttl_ms: int = 3000
    revision: int = 0
    standing: Standing = field(default_factory=lambda: Standing(0, None))
    lapses_ms: int = 0
    attending: set[str] = field(default_factory=set)
    """Tokens of the processes that are connected."""
    listeners: list[Callable[[], None]] = field(default_factory=list)

    def current(self) -> Standing:
        """The lease now."""
        if self.clock.monotonic_ms() >= self.lapses_ms:
            self.standing = Standing(0, None)
        return self.standing

    def write(self, holder: Holder | None, revision: int) -> int:
        """Claims. Raises LeaseLostError."""
        if self.current().revision != revision:
            raise LeaseLostError("another coordinator claimed the lease, or it lapsed")
        self.revision += 1
        self.standing = Standing(self.revision, holder)
        self.lapses_ms = self.clock.monotonic_ms() + self.ttl_ms
        for listener in tuple(self.listeners):
            listener()
        return self.revision


class MemoryLease:
    """One coordinator's connection to a LeaseStore."""

    def __init__(self, store: LeaseStore) -> None:
        self._store = store
        self._token = ""
        self._open = asyncio.Event()
        self._open.set()
        self.connected = True

    @property
    def ttl_ms(self) -> int:
        """How long a claim holds."""
        return self._store.ttl_ms

    async def look(self) -> Standing:
        """The lease now."""
        await self._answer()
        return self._store.current()

    async def claim(self, holder: Holder | None, *, revision: int) -> int:
        """Writes the holder where `revision` is still the lease's."""
        await self._answer()
        return self._store.write(holder, revision)

    async def attend(self, holder: Holder) -> None:
        """Counts as connected until `disconnect`."""
        await self._answer()
        self._token = holder.token
        self._store.attending.add(holder.token)

    async def is_gone(self, holder: Holder) -> bool:
        """Whether that process is not connected."""
        await self._answer()
        return holder.token not in self._store.attending

    def on_change(self, callback: Callable[[], None]) -> None:
        """Calls `callback` when somebody claims."""
        self._store.listeners.append(callback)

    def disconnect(self) -> None:
        """The process died or is cut off: calls fail, and others can see that it is gone."""
        self.connected = False
        self._store.attending.discard(self._token)
        self._open.set()

    def reconnect(self) -> None:
        """The connection is back."""
        self.connected = True
        if self._token:
            self._store.attending.add(self._token)

    def hold(self) -> None:
        """Lets calls wait until `release`, as a stopped broker does; nobody can see a difference from outside."""
        self._open.clear()

    def release(self) -> None:
        """Lets held calls go on."""
        self._open.set()

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        await self._open.wait()
        if not self.connected:
            raise BrokerUnavailableError("the connection is down; wait for the reconnect")

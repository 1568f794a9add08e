"""The lease that says which coordinator of a group leads.

It is for liveness alone: it keeps two coordinators from trying at once. What keeps an old leader from
writing is the log's own fence (hivefold.log.port), which needs no clock; so a lease that is granted too
early costs an election, never a record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the lease. `token` is drawn by each process that campaigns: no other has it."""

    coordinator_id: str
    address: str
    """Its gRPC address, "host:port"."""
    token: str
    term: int = 0
    """The term that it leads; 0 while it is taking over."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The lease as the broker has it. `revision` changes with every claim and is 0 where nothing is stored."""

    revision: int
    holder: Holder | None
    """None: nobody holds it."""


class Lease(Protocol):
    """One lease, kept by the broker. What is claimed lapses by itself `ttl_ms` (and up to a second) later."""

    @property
    def ttl_ms(self) -> int:
        """How long a claim holds, in milliseconds on the broker's clock."""
        ...

    async def look(self) -> Standing:
        """The lease as the broker's leader has it. Raises BrokerUnavailableError."""
        ...

    async def claim(self, holder: Holder | None, *, revision: int) -> int:
        """Writes the holder (None: gives the lease up) where `revision` is still the lease's; gives the new one.

        One primitive for taking (what `look` said), renewing (one's own) and letting go. Raises
        LeaseLostError when another claim came first or this one had lapsed, BrokerUnavailableError when
        no answer came: then it may have taken place.
        """
        ...

    async def attend(self, holder: Holder) -> None:
        """Lets others find this process while its connection lives. Raises BrokerUnavailableError."""
        ...

    async def is_gone(self, holder: Holder) -> bool:
        """Whether the broker has no connection of that process: it ended, or is cut off.

        False also where that cannot be told, as for a process that is stopped. Raises BrokerUnavailableError.
        """
        ...

    def on_change(self, callback: Callable[[], None]) -> None:
        """Calls `callback` when somebody claims. A hint: it may be missing or mean nothing."""
        ...

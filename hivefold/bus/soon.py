"""What need not be done at once is done a little later, together with what comes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hivefold.limits import ACK_DELAY_MS


class Soon:
    """Calls `act` once for all that ask within ACK_DELAY_MS of the first. `act` MUST NOT raise.

    An acknowledgement tells the broker what it may forget. Sent on its own it costs a wake-up of the broker
    on the way of the next message; lost, it makes something come again that is known.
    """

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self._timer: asyncio.TimerHandle | None = None

    def ask(self) -> None:
        """Has it done soon."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(ACK_DELAY_MS / 1000, self.now)

    def now(self) -> None:
        """Does it now if it was asked for."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._act()

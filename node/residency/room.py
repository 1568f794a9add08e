"""The memory that models may have, as it is measured now: other processes counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from actors.probes.memory import HostMemory
from node.residency.policy import HOST, Memory

_SPARED: Final = 0.05
"""The part of the memory that models leave free, for everything that is not a model: requests, the page cache."""


class Room:
    """Measures when it is called. `share` is the part of all memory that the models of this node may take."""

    def __init__(self, share: float, host: Callable[[], HostMemory]) -> None:
        self._share = share
        self._host = host

    def __call__(self) -> Memory:
        """What is free and may be taken, in bytes."""
        host = self._host()
        free = {HOST: host.available_bytes - int(_SPARED * host.total_bytes)}
        return Memory(free, {HOST: int(self._share * host.total_bytes)})


def unmeasured() -> Memory:
    """Room without end, where nothing is measured."""
    return Memory({}, {})

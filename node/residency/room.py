"""The memory that models may have, as it is measured now: the host's and each GPU's, other processes counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from actors.probes.memory import HostMemory
from hivefold.v1 import telemetry_pb2
from node.residency.policy import HOST, Memory

_SPARED: Final = 0.05
"""The part of the memory that models leave free, for everything that is not a model: requests, the page cache."""


class Room:
    """Measures when it is called. `share` is the part of all memory that the models of this node may take."""

    def __init__(
        self,
        share: float,
        host: Callable[[], HostMemory],
        gpus: Callable[[], Iterable[telemetry_pb2.GpuReading]] = lambda: (),
    ) -> None:
        self._share = share
        self._host = host
        self._gpus = gpus

    def __call__(self) -> Memory:
        """What is free and may be taken, in bytes. GPUs are as their latest reading has them."""
        host = self._host()
        free = {HOST: host.available_bytes - int(_SPARED * host.total_bytes)}
        budget = {HOST: int(self._share * host.total_bytes)}
        for gpu in self._gpus():
            if gpu.memory_total_bytes:
                spared = int(_SPARED * gpu.memory_total_bytes)
                free[gpu.uuid] = gpu.memory_total_bytes - gpu.memory_used_bytes - spared
                budget[gpu.uuid] = int(self._share * gpu.memory_total_bytes)
        return Memory(free, budget)


def unmeasured() -> Memory:
    """Room without end, where nothing is measured."""
    return Memory({}, {})

"""Work that came as a signal, beside the stream."""

from __future__ import annotations

from collections.abc import Mapping


class Express:
    """hivefold.bus.port.Delivery: there is nobody to answer; the copy in the stream is answered."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.headers: Mapping[str, str] = {}

    async def acknowledge(self) -> None:
        """Nothing to do."""

    async def in_progress(self) -> None:
        """Nothing to do."""

    async def give_back(self) -> None:
        """Nothing to do."""

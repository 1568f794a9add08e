"""The fleet's registry as a node reaches it: the coordinator that the pulse names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from hivefold.client.connection import Connection
from hivefold.client.models import Models
from hivefold.errors import Reason, UnavailableError
from hivefold.limits import LOCAL_POLL_S
from hivefold.oip.limits import CATALOGUE_ANSWER_S, CATALOGUE_MODELS
from hivefold.v1 import model_pb2


class FleetRegistry:
    """node.serving.catalogue.Registry. `leader` gives the address of the coordinator; empty before it was heard."""

    def __init__(self, leader: Callable[[], str]) -> None:
        self._leader = leader
        self._connection = Connection(self._locate)
        self._models = Models(self._connection)

    async def get(self, reference: str) -> model_pb2.Model:
        """One version, by "name" (the latest) or "name@version"."""
        await self._heard()
        await self._connection.refresh()
        return await self._models.get(reference)

    async def versions(self, name: str = "") -> list[model_pb2.Model]:
        """The versions of one name, or of all."""
        await self._heard()
        await self._connection.refresh()
        found: list[model_pb2.Model] = []
        async for model in self._models.list(name):
            found.append(model)
            if len(found) >= CATALOGUE_MODELS:
                break
        return found

    async def close(self) -> None:
        """Closes the connection."""
        await self._connection.close()

    async def _heard(self) -> None:
        """Waits a little for the first pulse: a node that has just started hears one within a second."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CATALOGUE_ANSWER_S):
                while not self._leader():
                    await asyncio.sleep(LOCAL_POLL_S)

    def _locate(self) -> tuple[str, ...]:
        address = self._leader()
        if not address:
            raise UnavailableError(
                "this node has not heard a coordinator yet; try again in a second",
                reason=Reason.SERVER_UNAVAILABLE,
            )
        return (address,)

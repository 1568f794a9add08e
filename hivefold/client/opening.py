"""The way in: one `connect` for programs with asyncio and for those without."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from hivefold.client.connection import Connection
from hivefold.client.fleet import Fleet
from hivefold.client.locating import Locate, locator
from hivefold.client.sync import SyncFleet


class Opening:
    """A fleet that is opened by `with`, as a SyncFleet, or by `async with`, as a Fleet; once at a time."""

    def __init__(self, locate: Locate) -> None:
        self._locate = locate
        self._sync: SyncFleet | None = None
        self._fleet: Fleet | None = None

    def __enter__(self) -> SyncFleet:
        self._sync = SyncFleet(Fleet(Connection(self._locate)))
        return self._sync.__enter__()

    def __exit__(
        self, error_class: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        if self._sync is not None:
            self._sync.__exit__(error_class, error, trace_back)

    async def __aenter__(self) -> Fleet:
        self._fleet = Fleet(Connection(self._locate))
        return await self._fleet.__aenter__()

    async def __aexit__(
        self, error_class: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        if self._fleet is not None:
            await self._fleet.__aexit__(error_class, error, trace_back)


def connect(address: str | None = None, *, directory: Path | str | None = None) -> Opening:
    """A client of the fleet whose coordinators are at `address` ("host:port", or several with commas between).

    For `async with`, or `with` in programs without asyncio. Without an address: HIVEFOLD_ADDRESS, else the local
    fleet in `directory`, in HIVEFOLD_DIR or in ./.hivefold. One address of a group is enough to write; a call to
    it that only reads is answered by that coordinator. Raises InvalidRequestError for what is no address; entering
    raises UnavailableError where there is no fleet.
    """
    return Opening(locator(address, directory))

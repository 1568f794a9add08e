"""A connection to the coordinator: finds it, calls it, finds it again after it moved."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import grpc
import grpc.aio

from hivefold import limits
from hivefold.errors import HivefoldError, Reason, UnavailableError
from hivefold.rpc import error_from_rpc, open_channel

if TYPE_CHECKING:
    from hivefold.client.fleet import Fleet

_DIRECTORY: Final = Path(".hivefold")
_START_ONE: Final = "start one with: hivefold up"


class _Call(Protocol):
    def __call__(self, request: Any, *, timeout: float | None = None) -> Any: ...


def connect(address: str | None = None, *, directory: Path | str | None = None) -> Fleet:
    """A client of the fleet whose coordinator is at `address` ("host:port"), for `async with`.

    Without an address: HIVEFOLD_ADDRESS, else the local fleet in `directory`, in HIVEFOLD_DIR or in
    ./.hivefold. Nothing is sent before the first call. Raises UnavailableError where there is no fleet.
    """
    from hivefold.client.fleet import Fleet

    return Fleet(Connection(locator(address, directory)))


def locator(address: str | None, directory: Path | str | None) -> Callable[[], str]:
    """What tells the coordinator's address, afresh at each call."""
    if address is None and directory is None:
        address = os.environ.get("HIVEFOLD_ADDRESS") or None
    if address is not None:
        fixed = address
        return lambda: fixed
    place = Path(directory or os.environ.get("HIVEFOLD_DIR") or _DIRECTORY)
    return lambda: _local_coordinator(place)


def _local_coordinator(directory: Path) -> str:
    path = directory / "endpoints.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["coordinator"])
    except FileNotFoundError:
        raise UnavailableError(
            f"no fleet runs in {directory} ({path} does not exist); {_START_ONE}", reason=Reason.SERVER_UNAVAILABLE
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnavailableError(
            f"{path} cannot be read ({error}); start the fleet again with: hivefold up",
            reason=Reason.SERVER_UNAVAILABLE,
        ) from error


class Connection:
    """Calls with deadlines; every gRPC error becomes one of hivefold.errors."""

    def __init__(self, locate: Callable[[], str]) -> None:
        self._locate = locate
        self._target = ""
        self._channel: grpc.aio.Channel | None = None
        self._stubs: dict[type[Any], Any] = {}

    async def __aenter__(self) -> Self:
        await self.refresh()
        return self

    async def __aexit__(
        self, error_class: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        await self.close()

    async def refresh(self) -> None:
        """Finds the coordinator (again); a channel to another address replaces the one there is."""
        target = self._locate()
        if target != self._target:
            await self.close()
            self._target, self._channel = target, open_channel(target)

    async def close(self) -> None:
        """Closes the channel; running calls are cut."""
        channel, self._channel, self._target = self._channel, None, ""
        self._stubs.clear()
        if channel is not None:
            await channel.close()

    def stub(self, kind: type[Any]) -> Any:
        """The stub of a service on the current channel."""
        if self._channel is None:
            raise UnavailableError("the client is not open: use it in `async with connect() as fleet`")
        found = self._stubs.get(kind)
        if found is None:
            found = self._stubs[kind] = kind(self._channel)
        return found

    async def call(self, kind: type[Any], method: str, request: Any, timeout_s: float = limits.GRPC_DEADLINE_S) -> Any:
        """One answer to one request, or to a stream of requests. Raises hivefold.errors by reason."""
        rpc: _Call = getattr(self.stub(kind), method)
        try:
            return await rpc(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise await self._explained(error) from None

    async def stream(
        self, kind: type[Any], method: str, request: Any, timeout_s: float | None = None
    ) -> AsyncIterator[Any]:
        """The answers to one request. Raises hivefold.errors by reason."""
        rpc: _Call = getattr(self.stub(kind), method)
        call = rpc(request, timeout=timeout_s)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise await self._explained(error) from None
        finally:
            if not call.done():
                call.cancel()

    async def _explained(self, error: grpc.RpcError) -> HivefoldError:
        """The error in hivefold's words; after a cut the next call looks for the coordinator anew."""
        explained = error_from_rpc(error, self._target)
        if isinstance(explained, UnavailableError):
            try:
                await self.refresh()
            except UnavailableError as gone:
                return gone
        return explained

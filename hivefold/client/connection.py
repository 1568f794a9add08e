"""A connection to the coordinators: finds the one that leads, calls it, finds it again after it moved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Protocol, Self

import grpc
import grpc.aio

from hivefold import limits
from hivefold.client.locating import Locate
from hivefold.clock import Clock, SystemClock
from hivefold.entropy import jitter
from hivefold.errors import HivefoldError, NotLeaderError, Reason, UnavailableError
from hivefold.rpc import error_from_rpc, open_channel
from hivefold.v1 import log_service_pb2
from hivefold.v1.log_service_pb2_grpc import LogServiceStub

_AGAIN: Final = frozenset({Reason.NOT_LEADER, Reason.SERVER_UNAVAILABLE, Reason.BROKER_UNAVAILABLE})
"""After these the same request may be sent again, here or to another coordinator."""


class _Call(Protocol):
    def __call__(self, request: Any, *, timeout: float | None = None) -> Any: ...


@dataclass(slots=True)
class _Search:
    """One call's way through the coordinators: where it failed, and for how long it goes on."""

    began_ms: int
    failed: set[str] = field(default_factory=set)
    wait_ms: int = limits.CALL_RETRY_MS
    group: bool = False
    """Whether one answered that another leads, or none does: then an election is on its way."""

    def over(self, now_ms: int) -> bool:
        """Whether it is time to give up."""
        return now_ms - self.began_ms > (limits.CALL_ELECTION_MS if self.group else limits.CALL_AGAIN_MS)

    async def pause(self) -> None:
        """Waits before the coordinators are gone through once more."""
        self.failed.clear()
        await asyncio.sleep(self.wait_ms * (0.8 + 0.4 * jitter()) / 1000)
        self.wait_ms = min(2 * self.wait_ms, limits.CALL_RETRY_MAX_MS)


class Connection:
    """Calls with deadlines; every gRPC error becomes one of hivefold.errors.

    A call of one message is sent again, unchanged, while nobody leads or the one that is asked is away:
    what records carries a request_id, and is recorded once.
    """

    def __init__(self, locate: Locate, clock: Clock | None = None) -> None:
        self._locate = locate
        self._clock = clock or SystemClock()
        self._known: tuple[str, ...] = ()
        self._target = ""
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._stubs: dict[tuple[str, type[Any]], Any] = {}

    async def __aenter__(self) -> Self:
        await self.refresh()
        return self

    async def __aexit__(
        self, error_class: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        await self.close()

    async def refresh(self) -> None:
        """Finds the coordinators (again); of several, the one that leads."""
        self._known = self._locate()
        if self._target not in self._known:
            self._target = self._known[0]
        if len(self._known) > 1:
            self._target = await self._leader(self._known) or self._target

    async def close(self) -> None:
        """Closes the channels; running calls are cut."""
        channels = tuple(self._channels.values())
        self._target, self._known = "", ()
        self._channels.clear()
        self._stubs.clear()
        for channel in channels:
            await channel.close()

    def stub(self, kind: type[Any]) -> Any:
        """The stub of a service at the coordinator that is asked now."""
        if not self._target:
            raise UnavailableError("the client is not open: use it in `async with connect() as fleet`")
        return self._stub_at(self._target, kind)

    async def call(self, kind: type[Any], method: str, request: Any, timeout_s: float = limits.GRPC_DEADLINE_S) -> Any:
        """One answer to one request, or to a stream of requests, within `timeout_s`. Raises hivefold.errors by reason.

        What makes the stream is given, and called again where the stream has to be sent again.
        """
        search: _Search | None = None
        began_ms, left_s = self._clock.monotonic_ms(), timeout_s
        while True:
            rpc: _Call = getattr(self.stub(kind), method)
            target = self._target
            try:
                sent = request() if callable(request) else request
                return await self._answer(rpc(sent, timeout=left_s), target)
            except grpc.aio.AioRpcError as failure:
                error = error_from_rpc(failure, target)
            except _LeftBehindError:
                error = _left_behind(target)
            if not isinstance(error, UnavailableError) or error.reason not in _AGAIN:
                raise error from None
            search = search or _Search(self._clock.monotonic_ms())
            await self._turn(error, target, search)
            now_ms = self._clock.monotonic_ms()
            left_s = timeout_s - (now_ms - began_ms) / 1000
            if left_s <= 0 or search.over(now_ms):
                raise error from None

    async def stream(
        self, kind: type[Any], method: str, request: Any, timeout_s: float | None = None
    ) -> AsyncIterator[Any]:
        """The answers to one request. Raises hivefold.errors by reason; the next call may go to another coordinator."""
        rpc: _Call = getattr(self.stub(kind), method)
        target = self._target
        call = rpc(request, timeout=timeout_s)
        try:
            responses = aiter(call)
            while True:
                try:
                    response = await self._answer(anext(responses), target)
                except StopAsyncIteration:
                    return
                yield response
        except (grpc.aio.AioRpcError, _LeftBehindError) as failure:
            error = _left_behind(target) if isinstance(failure, _LeftBehindError) else error_from_rpc(failure, target)
            if isinstance(error, UnavailableError):
                await self._turn(error, target, _Search(self._clock.monotonic_ms(), wait_ms=0))
            raise error from None
        finally:
            if not call.done():
                call.cancel()

    # -- finding the leader -----------------------------------------------------------

    async def _turn(self, error: HivefoldError, failed: str, search: _Search) -> None:
        """Goes on with the leader that an error names, else with a coordinator that this call has not tried yet."""
        search.failed.add(failed)
        try:
            self._known = self._locate()
        except UnavailableError as gone:
            error.__cause__ = gone
            raise gone from None
        leader = error.metadata.get("leader", "") if isinstance(error, NotLeaderError) else ""
        search.group = search.group or isinstance(error, NotLeaderError)
        if self._target != failed and self._target not in search.failed:
            return  # another call has found its way already
        candidates = [address for address in (leader, *self._known) if address and address not in search.failed]
        if candidates:
            self._target = candidates[0]
            return
        await search.pause()
        self._target = leader or self._known[0]

    async def _answer(self, call: Any, target: str) -> Any:
        """The answer; in a group, one that takes long is given up once another coordinator leads.

        A process that is stopped keeps its connections and answers nothing. Raises _LeftBehindError.
        """
        if len(self._known) < 2:
            return await call
        waiting = asyncio.ensure_future(call)
        patience_s = limits.CALL_DOUBT_S / 2
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=patience_s)
                if done:
                    return waiting.result()
                patience_s = limits.CALL_DOUBT_S
                leader = await self._leader([address for address in self._known if address != target])
                if leader and leader != target and not waiting.done():
                    self._target = leader
                    raise _LeftBehindError
        finally:
            if not waiting.done():
                waiting.cancel()

    async def _leader(self, addresses: Sequence[str]) -> str:
        """Which of these leads; empty when none says so."""
        asked = [asyncio.create_task(self._ask_head(address)) for address in addresses]
        try:
            for answered in asyncio.as_completed(asked, timeout=limits.CALL_FIND_S):
                head = await answered
                if head is not None and head.leading and head.leader_address:
                    return str(head.leader_address)
        except TimeoutError:
            pass
        finally:
            for task in asked:
                task.cancel()
        return ""

    async def _ask_head(self, address: str) -> log_service_pb2.GetHeadResponse | None:
        stub = self._stub_at(address, LogServiceStub)
        try:
            head: log_service_pb2.GetHeadResponse = await stub.GetHead(
                log_service_pb2.GetHeadRequest(), timeout=limits.CALL_FIND_S
            )
        except grpc.aio.AioRpcError:
            return None
        return head

    def _stub_at(self, address: str, kind: type[Any]) -> Any:
        found = self._stubs.get((address, kind))
        if found is None:
            channel = self._channels.get(address)
            if channel is None:
                channel = self._channels[address] = open_channel(address, repeating=False)
            found = self._stubs[address, kind] = kind(channel)
        return found


class _LeftBehindError(Exception):
    """The coordinator that was asked is silent, and another leads."""


def _left_behind(target: str) -> UnavailableError:
    return UnavailableError(
        f"{target} does not answer any more and another coordinator leads; asking there",
        reason=Reason.SERVER_UNAVAILABLE,
        metadata={"target": target},
    )

"""Calls passed on to another server as they came, bytes in and bytes out, over connections that are kept."""

from __future__ import annotations

import grpc
import grpc.aio

from hivefold import limits
from hivefold.errors import HivefoldError
from hivefold.rpc.channel import open_channel
from hivefold.rpc.errors import error_from_rpc


class Passing:
    """Passes unary calls of one method on; at most `channels` connections are kept, the one used last the longest."""

    def __init__(self, method: str, *, channels: int) -> None:
        self._method = method
        self._most = channels
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._closing: list[grpc.aio.Channel] = []

    async def call(self, target: str, data: bytes, *, timeout_s: float, mark: tuple[str, str] | None = None) -> bytes:
        """The answer of the server at `target`; `mark` goes with the call as metadata. Raises what the server said."""
        channel = self._channels.pop(target, None) or open_channel(target, repeating=False)
        self._channels[target] = channel
        if len(self._channels) > self._most:
            self._closing.append(self._channels.pop(next(iter(self._channels))))
        rpc: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(self._method)
        failed: HivefoldError
        try:
            answer: bytes = await rpc(data, timeout=timeout_s, metadata=(mark,) if mark else ())
        except grpc.aio.AioRpcError as error:
            failed = error_from_rpc(error, target)
        else:
            return answer
        finally:
            await self._close_old()
        raise failed

    async def close(self) -> None:
        """Closes all connections."""
        self._closing += self._channels.values()
        self._channels.clear()
        await self._close_old()

    async def _close_old(self) -> None:
        while self._closing:
            await self._closing.pop().close(limits.GRPC_STOP_S)

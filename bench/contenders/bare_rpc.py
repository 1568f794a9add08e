"""A bare gRPC server of one method over bytes, and calls to it one after another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio

READY: Final = "ready "
"""How a server's line begins that says its port."""
_SERVICE: Final = "bench.Bare"
_MESSAGE: Final = bytes(200)


async def start(answer: Callable[[bytes, object], Awaitable[bytes]]) -> grpc.aio.Server:
    """Starts the server on a free port, and says which."""
    server = grpc.aio.server()
    handlers: dict[str, Any] = {"Call": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"{READY}{port}", flush=True)
    return server


def round_trips(port: int, count: int) -> dict[str, Any]:
    """Milliseconds of each of `count` calls with 200 bytes."""
    return {"ms": asyncio.run(_round_trips(f"127.0.0.1:{port}", count))}


async def _round_trips(address: str, count: int) -> list[float]:
    times = []
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(f"/{_SERVICE}/Call")
        for _ in range(count):
            began = time.perf_counter()
            await call(_MESSAGE)
            times.append(1000 * (time.perf_counter() - began))
    return times

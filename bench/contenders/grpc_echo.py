"""A bare gRPC echo of 200 bytes between two processes: the floor under any call to hivefold."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import Any, Final

import grpc
import grpc.aio

from bench.contenders.protocol import serve

_METHOD: Final = "/bench.Echo/Echo"
_MESSAGE: Final = bytes(200)


async def _echo(request: bytes, _context: object) -> bytes:
    return request


async def _serve() -> None:
    server = grpc.aio.server()
    handlers: dict[str, Any] = {"Echo": grpc.unary_unary_rpc_method_handler(_echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


async def _round_trips(address: str, count: int) -> list[float]:
    times = []
    async with grpc.aio.insecure_channel(address) as channel:
        echo: Any = channel.unary_unary(_METHOD)
        for _ in range(count):
            began = time.perf_counter()
            await echo(_MESSAGE)
            times.append(1000 * (time.perf_counter() - began))
    return times


def main() -> None:
    command = [sys.executable, "-m", "bench.contenders.grpc_echo", "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())

        def round_trips(count: int) -> dict[str, Any]:
            return {"ms": asyncio.run(_round_trips(f"127.0.0.1:{port}", count))}

        serve({"round_trips": round_trips})
        server.terminate()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(_serve())
    else:
        main()

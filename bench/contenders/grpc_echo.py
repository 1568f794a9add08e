"""A bare gRPC echo of 200 bytes between two processes: the floor under any call to hivefold."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from functools import partial

from bench.contenders import bare_rpc
from bench.contenders.protocol import serve


async def _echo(request: bytes, _context: object) -> bytes:
    return request


async def _serve() -> None:
    await (await bare_rpc.start(_echo)).wait_for_termination()


def main() -> None:
    command = [sys.executable, "-m", "bench.contenders.grpc_echo", "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline().removeprefix(bare_rpc.READY))
        serve({"round_trips": partial(bare_rpc.round_trips, port)})
        server.terminate()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(_serve())
    else:
        main()

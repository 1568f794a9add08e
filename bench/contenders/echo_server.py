"""The floor under serving: a server of the same kind as a node's (grpc.aio on uvloop) that only echoes.

ModelInfer gives the bytes of a file, whatever it is sent: nothing is read, checked or computed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import uvloop

from bench.contenders.protocol import serve
from hivefold.rpc.server import server_options

_READY: Final = "ready "


async def _serve(answer: bytes) -> None:
    async def infer(_request: bytes, _context: object) -> bytes:
        return answer

    server = grpc.aio.server(options=server_options())
    handlers: dict[str, Any] = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    server.add_registered_method_handlers("inference.GRPCInferenceService", handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"{_READY}{port}", flush=True)
    await server.wait_for_termination()


def main() -> None:
    command = [sys.executable, "-m", "bench.contenders.echo_server", "serve", sys.argv[1]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline().removeprefix(_READY))
        serve({"where": lambda: {"address": f"127.0.0.1:{port}", "pids": [server.pid]}})
        server.terminate()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        uvloop.run(_serve(Path(sys.argv[2]).read_bytes()))
    else:
        main()

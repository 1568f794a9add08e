"""hivefold: a fleet of one node, models registered with it and served over its Open Inference Protocol edge."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.contenders.protocol import serve
from bench.fleet import endpoints, fleet
from hivefold.client import connect


def main() -> None:
    directory, threads = Path(tempfile.mkdtemp(prefix="fleet-", dir=sys.argv[1])), int(sys.argv[2])
    with fleet(directory, nodes=1, threads=threads) as started, asyncio.Runner() as runner:
        opening = connect(started.coordinator)
        client = runner.run(opening.__aenter__())
        (node,) = endpoints(directory)["nodes"]
        pids = [pid for name, pid in started.pids.items() if name not in {"up", "nats", "coordinator"}]

        def where() -> dict[str, Any]:
            return {"address": node["grpc"], "pids": pids}

        def add(file: str, name: str) -> dict[str, Any]:
            runner.run(client.models.add(file, name))
            return {}

        def python_calls(model: str, rows_file: str, count: int) -> dict[str, Any]:
            """Milliseconds of each of `count` calls of hivefold's own Python client, one after another."""
            rows = np.load(rows_file, allow_pickle=False)

            async def calls() -> list[float]:
                times = []
                for _ in range(count):
                    began = time.perf_counter()
                    await client.infer(model, rows)
                    times.append(1000 * (time.perf_counter() - began))
                return times

            return {"ms": runner.run(calls())}

        serve({"where": where, "add": add, "python_calls": python_calls})
        runner.run(opening.__aexit__(None, None, None))


if __name__ == "__main__":
    main()

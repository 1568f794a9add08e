"""Dask distributed: no-op tasks on three worker processes. Nothing is durable."""

from __future__ import annotations

import itertools
import time
from typing import Any

from distributed import Client, LocalCluster

from bench.contenders.protocol import serve


def _nothing(_: int) -> None:
    return None


def main() -> None:
    fresh = itertools.count()
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):

        def tasks(count: int) -> dict[str, Any]:
            # One map is the quickest way to submit many; arguments that differ keep tasks from being merged.
            arguments = [next(fresh) for _ in range(count)]
            began = time.perf_counter()
            client.gather(client.map(_nothing, arguments, pure=False))
            return {"seconds": time.perf_counter() - began}

        def round_trips(count: int) -> dict[str, Any]:
            times = []
            for _ in range(count):
                began = time.perf_counter()
                client.submit(_nothing, next(fresh), pure=False).result()
                times.append(1000 * (time.perf_counter() - began))
            return {"ms": times}

        serve({"tasks": tasks, "round_trips": round_trips})


if __name__ == "__main__":
    main()

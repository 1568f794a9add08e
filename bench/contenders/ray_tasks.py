"""Ray: no-op tasks on a local cluster of three workers. Nothing is durable."""

from __future__ import annotations

import os
import time
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

from bench.contenders.protocol import serve


def _nothing() -> None:
    return None


def main() -> None:
    ray.init(num_cpus=3, include_dashboard=False, logging_level="ERROR")
    nothing = ray.remote(_nothing)

    def tasks(count: int) -> dict[str, Any]:
        began = time.perf_counter()
        ray.get([nothing.remote() for _ in range(count)])
        return {"seconds": time.perf_counter() - began}

    def round_trips(count: int) -> dict[str, Any]:
        times = []
        for _ in range(count):
            began = time.perf_counter()
            ray.get(nothing.remote())
            times.append(1000 * (time.perf_counter() - began))
        return {"ms": times}

    serve({"tasks": tasks, "round_trips": round_trips})
    ray.shutdown()


if __name__ == "__main__":
    main()

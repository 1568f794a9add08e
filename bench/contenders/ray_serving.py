"""Ray Serve with the digits model: over HTTP, the row's bytes in and the label's out, so that no JSON is paid for."""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import numpy as np
import onnxruntime
import ray
from ray import serve as ray_serve
from starlette.requests import Request  # type: ignore[import-not-found]
from starlette.responses import Response  # type: ignore[import-not-found]

from bench.contenders.ports import free_ports
from bench.contenders.protocol import serve


class Digits:
    """One replica."""

    def __init__(self, file: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._names = [output.name for output in self._session.get_outputs()]

    async def __call__(self, request: Request) -> Response:
        rows = np.frombuffer(await request.body(), np.float32).reshape(-1, 64)
        found = self._session.run(self._names, {self._input: rows})
        return Response(b"".join([array.tobytes() for array in found]))


def main() -> None:
    (port,) = free_ports(1)
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    ray_serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"enable_access_log": False})
    deployment = ray_serve.deployment(Digits, max_ongoing_requests=1024, ray_actor_options={"num_cpus": 1})
    ray_serve.run(deployment.bind(sys.argv[1]), logging_config={"enable_access_log": False})
    serve({"where": lambda: {"address": f"127.0.0.1:{port}", "pids": []}})
    ray_serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()

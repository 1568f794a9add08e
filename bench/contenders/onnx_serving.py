"""ONNX Runtime and nothing else: the same request again and again, in one thread with all cores, or in one for each."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime

from bench.contenders.protocol import serve
from hivefold.memory import keep_freed_memory


def main() -> None:
    keep_freed_memory()  # as hivefold's own processes do
    file, rows_file, cores = sys.argv[1], sys.argv[2], int(sys.argv[3])
    rows = np.load(rows_file, allow_pickle=False)

    def session(threads: int) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def calls(loaded: Any, until: float) -> int:
        count = 0
        while time.perf_counter() < until:
            loaded.run(None, {loaded.get_inputs()[0].name: rows})
            count += 1
        return count

    together, each = session(cores), session(1)

    def rate(seconds: float) -> dict[str, Any]:
        """Requests a second, in the way that gives more."""
        found = []
        for loaded, threads in ((together, 1), (each, cores)):
            began = time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                done = sum(pool.map(lambda _: calls(loaded, began + seconds), range(threads)))  # noqa: B023
            found.append(done / (time.perf_counter() - began))
        return {"rate": max(found)}

    serve({"rate": rate})


if __name__ == "__main__":
    main()

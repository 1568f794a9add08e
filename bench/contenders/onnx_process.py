"""One process, no fleet: reads a file of rows, runs them through ONNX Runtime, writes the same output file."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bench.contenders.protocol import serve
from hivefold.memory import keep_freed_memory


def main() -> None:
    keep_freed_memory()  # as hivefold's own processes do
    model, threads = Path(sys.argv[1]), int(sys.argv[2])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0].name
    names = [output.name for output in session.get_outputs()]

    def infer(rows_file: str, output_file: str, batch_rows: int, limit_rows: int = 0) -> dict[str, Any]:
        """From opening the file to the finished output file; the model is loaded already."""
        began = time.perf_counter()
        rows = np.load(rows_file, mmap_mode="r", allow_pickle=False)
        count = min(limit_rows, len(rows)) if limit_rows else len(rows)
        outputs: list[Any] = []
        for first in range(0, count, batch_rows):
            last = min(first + batch_rows, count)
            parts = session.run(names, {feed: rows[first:last]})
            if not outputs:
                outputs = [np.empty((count, *part.shape[1:]), part.dtype) for part in parts]
            for output, part in zip(outputs, parts, strict=True):
                output[first:last] = part
        with Path(output_file).open("wb") as file:
            np.savez(file, **dict(zip(names, outputs, strict=True)))
        return {"seconds": time.perf_counter() - began, "rows": count}

    serve({"infer": infer})


if __name__ == "__main__":
    main()

"""LitServe with the digits model, over HTTP and JSON as it comes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import litserve  # type: ignore[import-not-found]
import numpy as np
import onnxruntime

from bench.contenders.ports import free_ports, wait_for
from bench.contenders.protocol import serve


class Digits(litserve.LitAPI):  # type: ignore[misc]
    """One worker."""

    file = ""

    def setup(self, device: str) -> None:
        del device
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(self.file, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._names = [output.name for output in self._session.get_outputs()]

    # LitServe takes annotations here for classes of its own web framework.
    def decode_request(self, request):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        return np.asarray(request["rows"], np.float32)

    def predict(self, rows: Any) -> Any:
        return self._session.run(self._names, {self._input: rows})

    def encode_response(self, found):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        return {name: array.tolist() for name, array in zip(self._names, found, strict=True)}


def _serve(file: str, port: int) -> None:
    api = Digits()
    api.file = file
    litserve.LitServer(api, accelerator="cpu", timeout=60).run(
        host="127.0.0.1", port=port, log_level="error", generate_client_file=False
    )


def main() -> None:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "bench.contenders.litserve_serving", "serve", sys.argv[1], str(port)]
    with subprocess.Popen(command, stdout=sys.stderr) as server:
        wait_for(port, within_s=60)
        serve({"where": lambda: {"address": f"127.0.0.1:{port}", "pids": [server.pid]}})
        server.terminate()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(sys.argv[2], int(sys.argv[3]))
    else:
        main()

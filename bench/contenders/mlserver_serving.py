"""MLServer over gRPC, with a runtime of a few lines around ONNX Runtime: it has none for ONNX of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from bench.contenders.ports import free_ports, wait_for
from bench.contenders.protocol import serve


def main() -> None:
    model, folder, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    folder.mkdir()
    grpc_port, http_port, metrics_port = free_ports(3)
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "grpc_port": grpc_port,
        "http_port": http_port,
        "metrics_port": metrics_port,
        "metrics_dir": str(folder),
        "environments_dir": str(folder),
        "parallel_workers": workers,
    }
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    described = {
        "name": "digits",
        "implementation": "bench.contenders.mlserver_model.OnnxModel",
        "parameters": {"uri": str(model)},
    }
    (folder / "model-settings.json").write_text(json.dumps(described), encoding="utf-8")
    command: list[str | Path] = [Path(sys.executable).parent / "mlserver", "start", folder]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(command, env=environment, stdout=sys.stderr) as server:
        wait_for(grpc_port, within_s=60)
        serve({"where": lambda: {"address": f"127.0.0.1:{grpc_port}", "pids": [server.pid]}})
        server.terminate()


if __name__ == "__main__":
    main()

from __future__ import annotations

import os
import subprocess
import sys

_SCRIPT = """
import hivefold, os, grpc
grpc.insecure_channel("127.0.0.1:1").close()
print(os.environ.get("GRPC_EXPERIMENTS", ""))
"""


def test_the_grpc_that_is_installed_is_switched_and_knows_the_switches() -> None:
    """Another gRPC than the one known leaves them unset; one that does not know a name says so."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    ran = subprocess.run([sys.executable, "-c", _SCRIPT], env=bare, capture_output=True, text=True, check=True)
    assert ran.stdout.strip().startswith("-event_engine")
    assert ran.stderr == ""

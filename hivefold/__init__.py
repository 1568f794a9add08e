"""What the node, the coordinator and the command line share."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Final

_KNOWN_GRPC: Final = "1.85."
"""The gRPC whose switches these are; to any other a name may be strange, and it says so on standard error."""
_GRPC_SWITCHES: Final = "-event_engine_client,-event_engine_listener"


def _prepare_grpc() -> None:
    """Sets what gRPC reads from the environment when it is imported, which happens below this package."""
    # gRPC's C core writes lines of its own to standard error, e.g. when a server goes away. What matters in
    # them reaches callers as errors; on a screen or in a JSON log they are noise.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Its event engine reads sockets in a pool of threads and hands what it finds to the thread that waits for it.
    # Without it that thread reads them: a call takes a quarter less time and processor on either side (docs/adr/0014).
    try:
        if version("grpcio").startswith(_KNOWN_GRPC):
            os.environ.setdefault("GRPC_EXPERIMENTS", _GRPC_SWITCHES)
    except PackageNotFoundError:
        return


_prepare_grpc()

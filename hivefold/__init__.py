"""What the node, the coordinator and the command line share."""

from __future__ import annotations

import os

# gRPC's C core writes lines of its own to standard error, e.g. when a server goes away. What matters in
# them reaches callers as errors; on a screen or in a JSON log they are noise. It is read when grpc is
# imported, and that happens below this package.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

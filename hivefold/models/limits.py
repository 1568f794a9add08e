"""Bounds of the model registry. The others are in hivefold.limits."""

from __future__ import annotations

from typing import Final

MODELS_REGISTERED: Final = 10_000
"""Model versions, with those that were removed: they are in the coordinator's state."""
ALIASES: Final = 10_000
RESIDENCIES: Final = 256
"""Versions that are kept loaded: whatever happens to a node, each may need a decision in one record."""
NODE_KEEPS: Final = 64
"""Versions that one node is to keep: bounds the order that it is sent."""
PROVENANCE_BYTES: Final = 1024
"""Longest licence, source, description or author."""
MODEL_REQUESTS_KEPT: Final = 256
"""Requests that changed the registry and are known again when they are repeated. Part of the fold."""
REPLICA_RETRY_US: Final = 30_000_000
REPLICA_RETRY_MAX_US: Final = 3_600_000_000
"""First wait before a node that could not load a model is chosen again; doubles up to the second. Part of the fold."""
BEATS_BEFORE_REORDER: Final = 2
"""Heartbeats that may name an older order before the order is sent again."""
KEEP_RETRY_S: Final = 1.0
KEEP_RETRY_MAX_S: Final = 30.0
"""First wait before a node tries again to load what it is to keep; doubles up to the second."""
KEEP_LOOK_S: Final = 1.0
"""How often a node looks whether a model that it is to keep is still loaded."""
FETCH_SAID_PERCENT: Final = 25
"""In which steps a fetch says in the log how far it is."""
PARTIALS_KEPT: Final = 8
"""Files that are not yet complete in a node's folder; the one touched longest ago goes first."""
FORGET_WAIT_S: Final = 0.5
"""Wait before the bytes of a removed model are looked at again, where something hindered their removal."""

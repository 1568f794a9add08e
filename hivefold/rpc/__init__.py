"""How hivefold speaks gRPC: one way to build servers and channels, one table between errors and statuses."""

from __future__ import annotations

from hivefold.rpc.channel import open_channel, open_sync_channel
from hivefold.rpc.errors import error_for, error_from_rpc, status_of
from hivefold.rpc.server import RpcServer, Service

__all__ = [
    "RpcServer",
    "Service",
    "error_for",
    "error_from_rpc",
    "open_channel",
    "open_sync_channel",
    "status_of",
]

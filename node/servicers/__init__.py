"""The node's gRPC services."""

from __future__ import annotations

from node.servicers.inference import inference_service
from node.servicers.node import node_service

__all__ = ["inference_service", "node_service"]

"""The node's gRPC services: proto in, the agent's values, proto out. No logic."""

from __future__ import annotations

from collections.abc import Callable

import grpc.aio

from hivefold.rpc import Service
from hivefold.v1 import node_service_pb2, node_service_pb2_grpc
from hivefold.v1.node_service_pb2 import DescribeNodeRequest, DescribeNodeResponse


class NodeServicer(node_service_pb2_grpc.NodeServiceServicer):
    """hivefold.v1.NodeService."""

    def __init__(self, describe: Callable[[], DescribeNodeResponse]) -> None:
        self._describe = describe

    async def DescribeNode(  # noqa: N802 - named by the contract
        self, request: DescribeNodeRequest, context: grpc.aio.ServicerContext[DescribeNodeRequest, DescribeNodeResponse]
    ) -> DescribeNodeResponse:
        """Says how the node is."""
        del request, context
        return self._describe()


def node_service(describe: Callable[[], DescribeNodeResponse]) -> Service:
    """The service, ready to be served."""
    servicer = NodeServicer(describe)
    name = node_service_pb2.DESCRIPTOR.services_by_name["NodeService"].full_name
    return Service(name, lambda server: node_service_pb2_grpc.add_NodeServiceServicer_to_server(servicer, server))

"""The fleet's nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator

from hivefold.client.connection import Connection
from hivefold.client.messages import message
from hivefold.client.paging import pages
from hivefold.client.request_ids import new_request_id
from hivefold.v1 import feed_pb2, fleet_pb2, fleet_service_pb2
from hivefold.v1.fleet_service_pb2_grpc import FleetServiceStub


class Nodes:
    """Nodes: list, get, follow, drain."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def list(self, *, include_gone: bool = False) -> AsyncIterator[fleet_pb2.Node]:
        """All nodes by id."""
        request = fleet_service_pb2.ListNodesRequest(include_gone=include_gone)
        async for node in pages(self._connection, FleetServiceStub, "ListNodes", request, "nodes"):
            yield node

    async def get(self, node_id: str) -> fleet_pb2.Node:
        """One node. Raises NotFoundError."""
        request = fleet_service_pb2.GetNodeRequest(node_id=node_id)
        node: fleet_pb2.Node = (await self._connection.call(FleetServiceStub, "GetNode", request)).node
        return node

    async def watch(self, after_sequence: int = 0) -> AsyncIterator[feed_pb2.NodeEvent]:
        """What happens to nodes, from a position on (0: from now on), until the connection is cut."""
        request = message(fleet_service_pb2.WatchNodesRequest, after_sequence=after_sequence)
        async for response in self._connection.stream(FleetServiceStub, "WatchNodes", request):
            yield response.event

    async def drain(self, node_id: str, note: str = "") -> fleet_pb2.Node:
        """Gives the node no new work. Raises NotFoundError."""
        request = fleet_service_pb2.DrainNodeRequest(request_id=new_request_id(), node_id=node_id, note=note)
        node: fleet_pb2.Node = (await self._connection.call(FleetServiceStub, "DrainNode", request)).node
        return node

    async def undrain(self, node_id: str) -> fleet_pb2.Node:
        """Gives the node work again. Raises NotFoundError."""
        request = fleet_service_pb2.UndrainNodeRequest(request_id=new_request_id(), node_id=node_id)
        node: fleet_pb2.Node = (await self._connection.call(FleetServiceStub, "UndrainNode", request)).node
        return node

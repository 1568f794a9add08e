"""FleetService: look at nodes, drain them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from coordinator.core.commands import DrainNode, UndrainNode
from coordinator.core.model import Node, State
from coordinator.servicers import checking
from coordinator.servicers.backing import Backing
from coordinator.servicers.paging import Pager
from coordinator.views import node_view
from coordinator.watch import watch_nodes
from hivefold.errors import NotFoundError, Reason
from hivefold.ids import NodeId
from hivefold.v1 import fleet_pb2
from hivefold.v1 import fleet_service_pb2 as pb
from hivefold.v1.fleet_service_pb2_grpc import FleetServiceServicer


class FleetServicer(FleetServiceServicer):
    """hivefold.v1.FleetService."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        """Lists nodes by id."""
        pager = Pager("nodes", [request.include_gone], request.page_size, request.page_token)
        nodes = sorted(
            (str(node_id), node)
            for node_id, node in self._backing.state.nodes.items()
            if node_id > pager.after and (request.include_gone or not node.state.gone)
        )
        page = pager.page(nodes)
        return pb.ListNodesResponse(nodes=[self._view(node) for node in page.items], next_page_token=page.next_token)

    async def GetNode(self, request: pb.GetNodeRequest, context: Any) -> pb.GetNodeResponse:
        """Gives one node."""
        state = await self._backing.state_that(lambda known: NodeId(request.node_id) in known.nodes)
        return pb.GetNodeResponse(node=self._view(_known(state, request.node_id)))

    async def WatchNodes(self, request: pb.WatchNodesRequest, context: Any) -> AsyncIterator[pb.WatchNodesResponse]:
        """Follows all nodes."""
        source = await self._backing.source_at(request.after_sequence)
        events = watch_nodes(source, self._backing.log, request.after_sequence)
        async with aclosing(events):
            async for event in events:
                yield pb.WatchNodesResponse(event=event)

    async def DrainNode(self, request: pb.DrainNodeRequest, context: Any) -> pb.DrainNodeResponse:
        """Gives a node no new work."""
        checking.refuse(checking.act("node_id", request.node_id, request.request_id))
        node_id = NodeId(request.node_id)
        answer = await self._backing.decide(DrainNode(node_id, request.note))
        return pb.DrainNodeResponse(node=self._view(answer.state.nodes[node_id]))

    async def UndrainNode(self, request: pb.UndrainNodeRequest, context: Any) -> pb.UndrainNodeResponse:
        """Gives a node work again."""
        checking.refuse(checking.act("node_id", request.node_id, request.request_id))
        node_id = NodeId(request.node_id)
        answer = await self._backing.decide(UndrainNode(node_id))
        return pb.UndrainNodeResponse(node=self._view(answer.state.nodes[node_id]))

    def _view(self, node: Node) -> fleet_pb2.Node:
        hearing, node_id = self._backing.hearing, node.spec.node_id
        return node_view(
            node,
            heartbeat_time_us=hearing.heard_time_us(node_id),
            reading=hearing.reading(node_id),
            refusal=hearing.refusal(node_id),
        )


def _known(state: State, node_id: str) -> Node:
    checking.refuse(checking.name("node_id", node_id))
    node = state.nodes.get(NodeId(node_id))
    if node is None:
        raise NotFoundError(
            f"there is no node {node_id!r}; list them with: hivefold node ls",
            reason=Reason.NODE_NOT_FOUND,
            metadata={"node": node_id},
        )
    return node

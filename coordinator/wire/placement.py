"""Reasons of placements to and from protobuf."""

from __future__ import annotations

from coordinator.core.placement import NodeRank, NodeRefusal, PlacementReason, RefusalReason
from hivefold.ids import NodeId
from hivefold.v1 import event_pb2 as pb

_REFUSAL_TO_PROTO = {r: pb.RefusalReason.Value(f"REFUSAL_REASON_{r}") for r in RefusalReason}
_REFUSAL_FROM_PROTO = {number: r for r, number in _REFUSAL_TO_PROTO.items()}


def refusal_to_proto(refusal: NodeRefusal) -> pb.NodeRefusal:
    """A node that was not chosen."""
    return pb.NodeRefusal(node_id=refusal.node_id, reason=_REFUSAL_TO_PROTO[refusal.reason], detail=refusal.detail)


def placement_to_proto(reason: PlacementReason) -> pb.PlacementReason:
    """Why something went where it went."""
    return pb.PlacementReason(
        ranking=[
            pb.NodeRank(
                node_id=rank.node_id,
                model_loaded=rank.model_loaded,
                free_slots=rank.free_slots,
                cpu_utilization_percent=rank.cpu_utilization_percent,
                memory_available_bytes=rank.memory_available_bytes,
            )
            for rank in reason.ranking
        ],
        refusals=[refusal_to_proto(refusal) for refusal in reason.refusals],
    )


def placement_from_proto(message: pb.PlacementReason) -> PlacementReason:
    """Why something went where it went."""
    ranking = tuple(
        [
            NodeRank(
                NodeId(rank.node_id),
                rank.model_loaded,
                rank.free_slots,
                rank.cpu_utilization_percent,
                rank.memory_available_bytes,
            )
            for rank in message.ranking
        ]
    )
    refusals = tuple(
        [
            NodeRefusal(NodeId(r.node_id), _REFUSAL_FROM_PROTO.get(r.reason, RefusalReason.NOT_ONLINE), r.detail)
            for r in message.refusals
        ]
    )
    return PlacementReason(ranking, refusals)

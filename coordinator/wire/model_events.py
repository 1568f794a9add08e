"""Events about registered models to and from protobuf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, assert_never

from coordinator.core import model_events as mev
from coordinator.wire import values as v
from coordinator.wire.placement import placement_from_proto, placement_to_proto
from hivefold.ids import BootId, Digest, ModelName, ModelRef, NodeId, RequestId
from hivefold.v1 import event_pb2 as pb

_CAUSE_TO_PROTO = {cause: pb.ReleaseCause.Value(f"RELEASE_CAUSE_{cause}") for cause in mev.ReleaseCause}
_CAUSE_FROM_PROTO = {number: cause for cause, number in _CAUSE_TO_PROTO.items()}


def model_change_to_proto(event: mev.ModelChange) -> pb.Event:
    """One event."""
    match event:
        case mev.AliasMoved():
            moved = pb.AliasMoved(
                name=event.name,
                alias=event.alias,
                version=event.version,
                previous_version=event.previous_version,
                note=event.note,
                request_id=event.request_id,
            )
            return pb.Event(alias_moved=moved)
        case mev.AliasRemoved(name, alias, version, note, request_id):
            gone = pb.AliasRemoved(name=name, alias=alias, previous_version=version, note=note, request_id=request_id)
            return pb.Event(alias_removed=gone)
        case mev.ResidencySet():
            wanted = pb.ResidencySet(
                model=event.model,
                replica_count=event.replica_count,
                pinned=event.pinned,
                needs=v.needs_to_proto(event.needs),
                request_id=event.request_id,
            )
            return pb.Event(residency_set=wanted)
        case mev.ReplicasPlaced(model, node_ids, reason):
            placed = pb.ReplicasPlaced(model=model, node_ids=node_ids, reason=placement_to_proto(reason))
            return pb.Event(replicas_placed=placed)
        case mev.ReplicasReleased(model, node_ids, cause):
            released = pb.ReplicasReleased(model=model, node_ids=node_ids, cause=_CAUSE_TO_PROTO[cause])
            return pb.Event(replicas_released=released)
        case mev.ReplicaFailed(model, node_id, boot_id, failure):
            failed = pb.ReplicaFailed(
                model=model, node_id=node_id, boot_id=boot_id, failure=v.failure_to_proto(failure)
            )
            return pb.Event(replica_failed=failed)
        case mev.ModelRemoved(model, forced, note, request_id):
            return pb.Event(model_removed=pb.ModelRemoved(model=model, forced=forced, note=note, request_id=request_id))
        case mev.ArtifactRemoved(root):
            return pb.Event(artifact_removed=pb.ArtifactRemoved(root=root))
        case _:
            assert_never(event)


def _alias_moved(message: pb.Event) -> mev.AliasMoved:
    body = message.alias_moved
    return mev.AliasMoved(
        ModelName(body.name), body.alias, body.version, body.previous_version, body.note, RequestId(body.request_id)
    )


def _alias_removed(message: pb.Event) -> mev.AliasRemoved:
    body = message.alias_removed
    return mev.AliasRemoved(
        ModelName(body.name), body.alias, body.previous_version, body.note, RequestId(body.request_id)
    )


def _residency_set(message: pb.Event) -> mev.ResidencySet:
    body = message.residency_set
    return mev.ResidencySet(
        ModelRef(body.model),
        body.replica_count,
        body.pinned,
        v.needs_from_proto(body.needs),
        RequestId(body.request_id),
    )


def _replicas_placed(message: pb.Event) -> mev.ReplicasPlaced:
    body = message.replicas_placed
    return mev.ReplicasPlaced(ModelRef(body.model), _nodes(body), placement_from_proto(body.reason))


def _replicas_released(message: pb.Event) -> mev.ReplicasReleased:
    body = message.replicas_released
    cause = _CAUSE_FROM_PROTO.get(body.cause, mev.ReleaseCause.NOT_WANTED)
    return mev.ReplicasReleased(ModelRef(body.model), _nodes(body), cause)


def _replica_failed(message: pb.Event) -> mev.ReplicaFailed:
    body = message.replica_failed
    return mev.ReplicaFailed(
        ModelRef(body.model), NodeId(body.node_id), BootId(body.boot_id), v.failure_from_proto(body.failure)
    )


def _model_removed(message: pb.Event) -> mev.ModelRemoved:
    body = message.model_removed
    return mev.ModelRemoved(ModelRef(body.model), body.forced, body.note, RequestId(body.request_id))


def _artifact_removed(message: pb.Event) -> mev.ArtifactRemoved:
    return mev.ArtifactRemoved(Digest(message.artifact_removed.root))


def _nodes(body: pb.ReplicasPlaced | pb.ReplicasReleased) -> tuple[NodeId, ...]:
    return tuple(NodeId(node_id) for node_id in body.node_ids)


READERS: Final[dict[str, Callable[[pb.Event], mev.ModelChange]]] = {
    "alias_moved": _alias_moved,
    "alias_removed": _alias_removed,
    "residency_set": _residency_set,
    "replicas_placed": _replicas_placed,
    "replicas_released": _replicas_released,
    "replica_failed": _replica_failed,
    "model_removed": _model_removed,
    "artifact_removed": _artifact_removed,
}
"""By the name of the body in the event."""

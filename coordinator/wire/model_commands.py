"""Commands about registered models to and from protobuf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, assert_never

from coordinator.core import commands as cmd
from coordinator.wire import values as v
from hivefold.ids import BootId, Digest, ModelName, NodeId, RequestId
from hivefold.v1 import command_pb2 as pb

ModelCommand: TypeAlias = (
    cmd.RegisterModel
    | cmd.MoveAlias
    | cmd.SetResidency
    | cmd.RemoveModel
    | cmd.ReportReplica
    | cmd.PlaceReplicas
    | cmd.ConfirmArtifactRemoved
)


def model_command_to_proto(message: pb.Command, body: ModelCommand) -> None:
    """Sets the body of `message`."""
    match body:
        case cmd.RegisterModel(model):
            message.register_model.CopyFrom(pb.RegisterModel(model=v.model_to_proto(model)))
        case cmd.MoveAlias():
            move = pb.MoveAlias(
                name=body.name,
                alias=body.alias,
                version=body.version,
                expected_version=body.expected_version,
                note=body.note,
                request_id=body.request_id,
            )
            message.move_alias.CopyFrom(move)
        case cmd.SetResidency():
            wanted = pb.SetResidency(
                model=body.model,
                replica_count=body.replica_count,
                pinned=body.pinned,
                needs=v.needs_to_proto(body.needs) if body.needs is not None else None,
                request_id=body.request_id,
            )
            message.set_residency.CopyFrom(wanted)
        case cmd.RemoveModel(model_text, force, note, request_id):
            removal = pb.RemoveModel(model=model_text, force=force, note=note, request_id=request_id)
            message.remove_model.CopyFrom(removal)
        case cmd.ReportReplica(node_id, boot_id, digest, failure):
            report = pb.ReportReplica(
                node_id=node_id, boot_id=boot_id, digest=digest, failure=v.failure_to_proto(failure)
            )
            message.report_replica.CopyFrom(report)
        case cmd.PlaceReplicas():
            message.place_replicas.SetInParent()
        case cmd.ConfirmArtifactRemoved(root):
            message.confirm_artifact_removed.CopyFrom(pb.ConfirmArtifactRemoved(root=root))
        case _:
            assert_never(body)


def _move_alias(message: pb.Command) -> cmd.CommandBody:
    body = message.move_alias
    expected = body.expected_version if body.HasField("expected_version") else None
    return cmd.MoveAlias(
        ModelName(body.name), body.alias, body.version, expected, body.note, RequestId(body.request_id)
    )


def _set_residency(message: pb.Command) -> cmd.CommandBody:
    body = message.set_residency
    return cmd.SetResidency(
        body.model,
        body.replica_count if body.HasField("replica_count") else None,
        body.pinned if body.HasField("pinned") else None,
        v.needs_from_proto(body.needs) if body.HasField("needs") else None,
        RequestId(body.request_id),
    )


def _remove_model(message: pb.Command) -> cmd.CommandBody:
    body = message.remove_model
    return cmd.RemoveModel(body.model, body.force, body.note, RequestId(body.request_id))


def _report_replica(message: pb.Command) -> cmd.CommandBody:
    body = message.report_replica
    return cmd.ReportReplica(
        NodeId(body.node_id), BootId(body.boot_id), Digest(body.digest), v.failure_from_proto(body.failure)
    )


READERS: Final[dict[str, Callable[[pb.Command], cmd.CommandBody]]] = {
    "register_model": lambda c: cmd.RegisterModel(v.model_from_proto(c.register_model.model)),
    "move_alias": _move_alias,
    "set_residency": _set_residency,
    "remove_model": _remove_model,
    "report_replica": _report_replica,
    "place_replicas": lambda _: cmd.PlaceReplicas(),
    "confirm_artifact_removed": lambda c: cmd.ConfirmArtifactRemoved(Digest(c.confirm_artifact_removed.root)),
}
"""By the name of the body in the command."""

"""Facts about models after they were registered, field by field as in protos/hivefold/v1/event.proto. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from coordinator.core.placement import PlacementReason
from coordinator.core.registered import Failure, Needs
from hivefold.ids import BootId, Digest, ModelName, ModelRef, NodeId, RequestId


@dataclass(frozen=True, slots=True)
class AliasMoved:
    """An alias stands for a version from now on; `previous_version` is 0 where the alias is new."""

    name: ModelName
    alias: str
    version: int
    previous_version: int
    note: str
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class AliasRemoved:
    """An alias is no more; `request_id` is empty where its version was removed by force."""

    name: ModelName
    alias: str
    previous_version: int
    note: str
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class ResidencySet:
    """A version is to be kept loaded so from now on; `replica_count` 0 ends it."""

    model: ModelRef
    replica_count: int
    pinned: bool
    needs: Needs
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class ReplicasPlaced:
    """Nodes are to load and keep a version."""

    model: ModelRef
    node_ids: tuple[NodeId, ...]
    reason: PlacementReason


class ReleaseCause(StrEnum):
    """Why a node no longer has to keep a model."""

    NODE_GONE = "NODE_GONE"
    NOT_WANTED = "NOT_WANTED"
    REPLACED = "REPLACED"


@dataclass(frozen=True, slots=True)
class ReplicasReleased:
    """Nodes no longer have to keep a version."""

    model: ModelRef
    node_ids: tuple[NodeId, ...]
    cause: ReleaseCause


@dataclass(frozen=True, slots=True)
class ReplicaFailed:
    """A node could not load a version that it was to keep."""

    model: ModelRef
    node_id: NodeId
    boot_id: BootId
    failure: Failure


@dataclass(frozen=True, slots=True)
class ModelRemoved:
    """A version is no longer registered; its number is never given again."""

    model: ModelRef
    forced: bool
    note: str
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class ArtifactRemoved:
    """Bytes that only removed models named are no longer stored."""

    root: Digest


ModelChange: TypeAlias = (
    AliasMoved
    | AliasRemoved
    | ResidencySet
    | ReplicasPlaced
    | ReplicasReleased
    | ReplicaFailed
    | ModelRemoved
    | ArtifactRemoved
)

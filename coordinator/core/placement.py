"""Why something went where it went: the candidates and the refused, as recorded with the decision. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hivefold.ids import NodeId


class RefusalReason(StrEnum):
    """Why a node was not chosen."""

    NOT_ONLINE = "NOT_ONLINE"
    DRAINING = "DRAINING"
    LABEL_MISSING = "LABEL_MISSING"
    GPU_MISSING = "GPU_MISSING"
    MEMORY_SHORT = "MEMORY_SHORT"
    NO_FREE_SLOT = "NO_FREE_SLOT"
    FAILED_BEFORE = "FAILED_BEFORE"


@dataclass(frozen=True, slots=True)
class NodeRefusal:
    """A node that was not chosen, and why."""

    node_id: NodeId
    reason: RefusalReason
    detail: str


@dataclass(frozen=True, slots=True)
class NodeRank:
    """A node that could have been chosen, with what it was ranked by."""

    node_id: NodeId
    model_loaded: bool
    free_slots: int
    cpu_utilization_percent: int
    memory_available_bytes: int


@dataclass(frozen=True, slots=True)
class PlacementReason:
    """Why tasks went where they went: candidates best first, and the refused."""

    ranking: tuple[NodeRank, ...]
    refusals: tuple[NodeRefusal, ...]

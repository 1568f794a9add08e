"""Registered models, the names and the nodes that they are given. Values of the coordinator's state, as in model.py.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from hivefold.errors import Reason
from hivefold.ids import AliasRef, BootId, Digest, ModelName, ModelRef, NodeId, RequestId, alias_ref, model_ref
from hivefold.models.passport.facts import Passport

Pairs: TypeAlias = tuple[tuple[str, str], ...]


def sorted_pairs(values: Mapping[str, str]) -> Pairs:
    """A mapping as pairs in the one order that reads back equal from the log."""
    return tuple(sorted(values.items()))


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt, a task or a job failed."""

    reason: Reason
    message: str
    retryable: bool = False
    metadata: Pairs = ()


@dataclass(frozen=True, slots=True)
class BlobRef:
    """Names immutable content by its root digest."""

    root: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a model; -1 in the shape means any size. `data_type` as "FP32"."""

    name: str
    data_type: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model came from, as whoever registered it says; each may be empty."""

    licence: str = ""
    source: str = ""
    description: str = ""
    author: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """A registered model version."""

    name: ModelName
    version: int
    digest: Digest
    artifact: BlobRef
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    create_time_us: int = 0
    labels: Pairs = ()
    passport: Passport | None = None
    provenance: Provenance | None = None

    @property
    def ref(self) -> ModelRef:
        """ "name@version"."""
        return model_ref(self.name, self.version)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a node must have."""

    node_labels: Pairs = ()
    memory_bytes: int = 0
    gpu_count: int = 0


class Alias(NamedTuple):
    """A name for a version of a model, "digits@prod"; `previous_version` is 0 where it was new."""

    name: ModelName
    alias: str
    version: int
    previous_version: int
    time_us: int
    sequence: int
    note: str = ""

    @property
    def ref(self) -> AliasRef:
        """ "name@alias"."""
        return alias_ref(self.name, self.alias)

    @property
    def model(self) -> ModelRef:
        """The version that it stands for."""
        return model_ref(self.name, self.version)


class ReplicaFailure(NamedTuple):
    """A node could not load a model: it is not chosen again before `retry_time_us`, unless it boots anew."""

    node_id: NodeId
    boot_id: BootId
    tries: int
    retry_time_us: int
    failure: Failure


class Residency(NamedTuple):
    """How a model version is to be kept loaded: what is wanted, and the nodes that were chosen, by id."""

    model: ModelRef
    replica_count: int
    pinned: bool
    needs: Needs
    time_us: int
    nodes: tuple[NodeId, ...] = ()
    failures: tuple[ReplicaFailure, ...] = ()


class ModelRequest(NamedTuple):
    """A request that changed the registry: enough to tell its repeat from a slip.

    `subject` is what it is about; `values` what it set, in the order of its kind.
    """

    request_id: RequestId
    subject: str
    values: tuple[str, ...]

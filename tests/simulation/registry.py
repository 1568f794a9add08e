"""The registry of models in simulation: how nodes ask for it, and what must hold of names, versions and replicas."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

from coordinator.batch import Accepted
from coordinator.core import commands as cmd
from coordinator.core import events as ev
from coordinator.core import model_events as mev
from coordinator.core.decide_replicas import rank_for
from coordinator.core.model import InferSpec, JobSpec, Model, Needs, Node, NodeSpec, NodeState, Rejected, State
from coordinator.core.placement import RefusalReason
from coordinator.wire.values import model_to_proto
from hivefold.bus.memory import MemoryConnection
from hivefold.errors import NotFoundError, Reason
from hivefold.ids import AliasRef, ModelRef, RequestId, alias_ref, model_ref, parse_alias
from hivefold.v1 import fleet_pb2, model_pb2

_GIB: Final = 1 << 30
NEEDS: Final = (
    Needs(),
    Needs(node_labels=(("zone", "a"),)),
    Needs(node_labels=(("zone", "b"),)),
    Needs(memory_bytes=3 * _GIB),
    Needs(memory_bytes=20 * _GIB),
    Needs(gpu_count=1),
)
"""What people ask nodes for; the last two no node has."""
_UNMET: Final = {RefusalReason.LABEL_MISSING, RefusalReason.MEMORY_SHORT, RefusalReason.GPU_MISSING}
Change: TypeAlias = cmd.MoveAlias | cmd.SetResidency | cmd.RemoveModel
Hold = Callable[[bool, str], None]


def calls_by_name(spec: JobSpec) -> bool:
    """Whether a job asks for a model by an alias, which may be gone."""
    return isinstance(spec.kind, InferSpec) and parse_alias(spec.kind.model) is not None


def node_spec(node_id: str, boot_id: str, slots: int) -> fleet_pb2.NodeSpec:
    """A node of sixteen gigabytes; every other one is in zone a."""
    zone = "a" if int(node_id.removeprefix("n")) % 2 else "b"
    return fleet_pb2.NodeSpec(
        node_id=node_id, boot_id=boot_id, slot_count=slots, memory_bytes=16 * _GIB, labels={"zone": zone}
    )


class SimRegistry:
    """node.serving.catalogue.Registry: the coordinator that leads, over one node's connection."""

    def __init__(
        self, connection: MemoryConnection, look_up: Callable[[str, random.Random], Model | None], draw: random.Random
    ) -> None:
        self._connection = connection
        self._look_up = look_up
        self._draw = draw

    async def get(self, reference: str) -> model_pb2.Model:
        """One version. Raises NotFoundError, UnavailableError."""
        await asyncio.sleep(self._draw.expovariate(100.0))
        self._connection.require_up()
        found = self._look_up(reference, self._draw)
        await asyncio.sleep(self._draw.expovariate(100.0))
        self._connection.require_up()
        if found is None:
            raise NotFoundError(f"there is no model {reference}", reason=Reason.MODEL_NOT_FOUND)
        return model_to_proto(found)

    async def versions(self, name: str = "") -> list[model_pb2.Model]:
        """The versions of a name: nobody asks."""
        raise NotImplementedError


class Book:
    """What the log says of models, folded apart from the production code, and what people were told of them."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._registered: dict[ModelRef, Model] = {}
        self._given: set[ModelRef] = set()
        self.aliases: dict[AliasRef, ModelRef] = {}
        self._changed: set[RequestId] = set()
        """Requests that changed something."""

    def recorded(self, event: ev.Event, state: State) -> None:
        """One event of a record, with the state after the record."""
        match event:
            case ev.ModelRegistered(model):
                self._hold(model.ref not in self._given, f"{model.ref} was given twice")
                self._given.add(model.ref)
                self._registered[model.ref] = model
            case mev.AliasMoved() | mev.AliasRemoved():
                self._moved(event)
            case mev.ResidencySet(model, request_id=request_id):
                self._once(request_id)
                self._hold(model in self._registered, f"{model} is to be kept and is not registered")
            case mev.ModelRemoved(ref, request_id=request_id):
                self._once(request_id)
                named = [alias for alias, target in self.aliases.items() if target == ref]
                self._hold(not named, f"{ref} was removed and {named} stand for it")
                self._hold(self._registered.pop(ref, None) is not None, f"{ref} was removed and was not registered")
            case mev.ReplicasPlaced(ref, node_ids):
                needs = state.residencies[ref].needs
                for node_id in node_ids:
                    self._hold(_has(state.nodes[node_id].spec, needs), f"{ref} was placed on {node_id} in vain")
            case mev.ArtifactRemoved(root):
                users = [ref for ref, model in self._registered.items() if model.artifact.root == root]
                self._hold(not users, f"the bytes of {users} were removed")
            case _:
                pass

    def _moved(self, event: mev.AliasMoved | mev.AliasRemoved) -> None:
        self._once(event.request_id)
        ref = alias_ref(event.name, event.alias)
        before = model_ref(event.name, event.previous_version) if event.previous_version else None
        self._hold(self.aliases.get(ref) == before, f"{ref} was moved from {before} and stood for another version")
        self.aliases.pop(ref, None)
        if isinstance(event, mev.AliasMoved):
            target = self.aliases[ref] = model_ref(event.name, event.version)
            self._hold(target in self._registered, f"{ref} stands for {target}, which is not registered")

    def _once(self, request_id: RequestId) -> None:
        """What goes with its model by force has no request of its own."""
        self._hold(request_id not in self._changed, f"request {request_id} changed the registry twice")
        if request_id:
            self._changed.add(request_id)

    def has_changed(self, body: cmd.CommandBody) -> bool:
        """Whether it is a request that changed the registry."""
        return isinstance(body, Change) and body.request_id in self._changed

    def answered(self, body: Change, answer: Accepted | Rejected, *, again: bool) -> None:
        """Somebody got this answer; `again` says whether the request had changed something when it was asked."""
        if isinstance(answer, Rejected):
            self._hold(not again, f"request {body.request_id} changed the registry and was refused: {answer.message}")
            self._hold(answer.reason in _REFUSALS[type(body)], f"{body.request_id} was refused: {answer.message}")
            self._hold(
                answer.reason is not Reason.ALIAS_MOVED or getattr(body, "expected_version", None) is not None,
                f"{body.request_id} expected nothing and was refused: {answer.message}",
            )
        elif isinstance(body, cmd.MoveAlias) and (answer.sequence or not self.has_changed(body)):
            alias = answer.state.aliases.get(alias_ref(body.name, body.alias))
            stands = alias.version if alias else 0
            self._hold(stands == body.version, f"{body.request_id} was acknowledged and the alias stands for {stands}")

    def unsettled(self, state: State) -> Iterator[str]:
        """What is not as people wanted it, and could be."""
        yield from (f"the bytes of {ref} are still stored" for ref in state.discarded.values())
        for ref, residency in state.residencies.items():
            able = {node_id for node_id, node in state.nodes.items() if _may_keep(node, residency.needs)}
            standing, digest = able.intersection(residency.nodes), self._registered[ref].digest
            away = [node_id for node_id in residency.nodes if digest not in state.nodes[node_id].loaded_models]
            # Who no longer has what is needed keeps it while there are not enough who have.
            lacking = len(residency.nodes) > len(standing) >= residency.replica_count
            if lacking or len(standing) != min(residency.replica_count, len(able)):
                yield f"{ref} is kept on {residency.nodes} of {sorted(able)}, wanted are {residency.replica_count}"
            if away:
                yield f"{ref} is not loaded on {away}"

    def check_reasons(self, state: State) -> None:
        """Who asks why nodes are missing hears of each other node which need it does not meet."""
        for ref, residency in state.residencies.items():
            able = sum(_may_keep(node, residency.needs) for node in state.nodes.values())
            if residency.replica_count > able:
                told = {refusal.node_id: refusal.reason for refusal in rank_for(state, residency).refusals}
                self._hold(set(told) == set(state.nodes) - set(residency.nodes), f"{ref}: why is told of {told} only")
                self._hold(set(told.values()) <= _UNMET, f"{ref} lacks nodes, and no need is named: {told}")

    def kept_by(self, state: State, node_id: str) -> set[str]:
        """The digests of what a node is to keep."""
        return {self._registered[ref].digest for ref, found in state.residencies.items() if node_id in found.nodes}

    def needed(self) -> Mapping[ModelRef, Model]:
        """The models whose bytes must be there."""
        return self._registered


_REFUSALS: Final = {
    cmd.MoveAlias: {Reason.ALIAS_MOVED, Reason.MODEL_NOT_FOUND},
    cmd.SetResidency: {Reason.MODEL_NOT_FOUND},
    cmd.RemoveModel: {Reason.MODEL_IN_USE, Reason.MODEL_NOT_FOUND},
}


def _may_keep(node: Node, needs: Needs) -> bool:
    return node.state is NodeState.ONLINE and not node.draining and _has(node.spec, needs)


def _has(spec: NodeSpec, needs: Needs) -> bool:
    labels = set(needs.node_labels) <= set(spec.labels)
    return labels and len(spec.gpus) >= needs.gpu_count and spec.memory_bytes >= needs.memory_bytes

"""What happened to a model's names and replicas, in words. Pure."""

from __future__ import annotations

from typing import NamedTuple, assert_never

from coordinator.audit import telling
from coordinator.audit.subjects import ModelSubject
from coordinator.core import model_events as mev
from hivefold.ids import ModelName, ModelRef, parse_model


class Told(NamedTuple):
    """A line about one version of a model."""

    subject: ModelSubject
    title: str
    text: str


def model_change(event: mev.ModelChange) -> Told | None:
    """A line; None for what is about no version."""
    match event:
        case mev.AliasMoved(name, alias, version, before, note):
            was = f", before version {before}" if before else ""
            text = telling.joined((f"{name}@{alias} stands for version {version}{was}", note))
            return Told(ModelSubject(name, version), "alias moved", text)
        case mev.AliasRemoved(name, alias, before, note):
            text = telling.joined((f"{name}@{alias} stood for version {before}", note))
            return Told(ModelSubject(name, before), "alias removed", text)
        case mev.ResidencySet():
            pinned = "pinned" if event.pinned else ""
            wanted = f"to be kept on {telling.count(event.replica_count, 'node')}"
            return _told(event.model, "residency", telling.joined((wanted, pinned, telling.needed(event.needs))))
        case mev.ReplicasPlaced(model, node_ids, _):
            return _told(model, "placed", f"on {', '.join(node_ids)}")
        case mev.ReplicasReleased(model, node_ids, cause):
            return _told(model, "released", f"from {', '.join(node_ids)} ({cause})")
        case mev.ReplicaFailed(model, node_id, _, failure):
            return _told(model, "not loaded", f"on {node_id}: {telling.failure(failure)}")
        case mev.ModelRemoved(model, forced, note):
            return _told(model, "removed", telling.joined(("by force" if forced else "by request", note)))
        case mev.ArtifactRemoved():
            return None
        case _:
            assert_never(event)


def _told(ref: ModelRef, title: str, text: str) -> Told:
    name, version = parse_model(ref) or (ModelName(ref), 0)
    return Told(ModelSubject(name, version), title, f"{ref} {text}")

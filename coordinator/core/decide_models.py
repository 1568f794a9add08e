"""Decisions about registered models: versions, aliases, where they are kept loaded, removal. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeAlias, TypeVar, assert_never

from coordinator.core import commands as cmd
from coordinator.core import events as ev
from coordinator.core import model_events as mev
from coordinator.core.check_spec import label_violations, text_violations
from coordinator.core.decide_replicas import place_replicas
from coordinator.core.draft import Draft
from coordinator.core.model import Model, Needs, Rejected, State
from coordinator.core.registered import ModelRequest, Provenance
from coordinator.core.resolve import resolve, unknown_model
from hivefold import limits
from hivefold.errors import FieldViolation, Reason
from hivefold.ids import (
    ALIAS_RULE,
    DIGEST_RULE,
    NAME_RULE,
    REQUEST_RULE,
    VERSION_RULE,
    ModelRef,
    RequestId,
    alias_ref,
    is_alias,
    is_digest,
    is_name,
    is_request_id,
    model_ref,
    parse_model,
)
from hivefold.models.limits import ALIASES, MODELS_REGISTERED, PROVENANCE_BYTES, RESIDENCIES

_Value = TypeVar("_Value", int, bool)
_Change: TypeAlias = (
    cmd.RegisterModel
    | cmd.MoveAlias
    | cmd.SetResidency
    | cmd.RemoveModel
    | cmd.ReportReplica
    | cmd.PlaceReplicas
    | cmd.ConfirmArtifactRemoved
)


def change_models(draft: Draft, body: _Change) -> Rejected | None:
    """Decides one command about models."""
    match body:
        case cmd.RegisterModel():
            return register_model(draft, body)
        case cmd.MoveAlias():
            return move_alias(draft, body)
        case cmd.SetResidency():
            return set_residency(draft, body)
        case cmd.RemoveModel():
            return remove_model(draft, body)
        case cmd.ReportReplica():
            return report_replica(draft, body)
        case cmd.PlaceReplicas():
            place_replicas(draft)
            return None
        case cmd.ConfirmArtifactRemoved(root):
            if root in draft.state.discarded:
                draft.emit(mev.ArtifactRemoved(root))
            return None
        case _:
            assert_never(body)


def register_model(draft: Draft, body: cmd.RegisterModel) -> Rejected | None:
    """Registers the next version of a model; the content of the latest again records nothing."""
    model, state = body.model, draft.state
    violations = _model_violations(model)
    if violations:
        message = f"the model is not well-formed: {violations[0].field} {violations[0].description}"
        return Rejected(Reason.INVALID_ARGUMENT, message, violations=violations)
    latest = state.models.get(model_ref(model.name, state.latest.get(model.name, 0)))
    known = state.models.get(model.ref) or state.removed.get(model.ref)
    if model.version == 0:
        if latest is not None and latest.digest == model.digest:
            return None
    elif known is not None:
        if known.digest == model.digest and model.ref in state.models:
            return None
        return Rejected(
            Reason.MODEL_EXISTS,
            f"{model.ref} is registered with digest {known.digest}; register the new content as another version",
            (("digest", known.digest), ("model", model.ref)),
        )
    if len(state.models) + len(state.removed) >= MODELS_REGISTERED:
        return Rejected(
            Reason.LIMIT_EXCEEDED,
            f"{MODELS_REGISTERED} model versions were registered, the limit; start another fleet",
            (("limit", str(MODELS_REGISTERED)),),
        )
    version = model.version or _highest(state, model) + 1
    draft.emit(ev.ModelRegistered(replace(model, version=version, create_time_us=state.time_us)))
    return None


def move_alias(draft: Draft, body: cmd.MoveAlias) -> Rejected | None:
    """Lets an alias stand for a version, or for none; the same again records nothing."""
    state, ref = draft.state, alias_ref(body.name, body.alias)
    malformed = _refused(_alias_violations(body))
    if malformed is not None:
        return malformed
    repeated = _repeated(state, body.request_id, ref, (str(body.version),))
    if repeated is not None:
        return repeated.rejected
    alias = state.aliases.get(ref)
    now = alias.version if alias else 0
    if body.expected_version not in {None, now}:
        stands = f"stands for version {now}" if now else "is not set"
        return Rejected(
            Reason.ALIAS_MOVED,
            f"{ref} {stands}, expected was {body.expected_version}: somebody else moved it; look, then move it again",
            (("alias", ref), ("expected", str(body.expected_version)), ("version", str(now))),
        )
    if body.version and model_ref(body.name, body.version) not in state.models:
        return unknown_model(state, model_ref(body.name, body.version))
    if not body.version and alias is None:
        return unknown_model(state, ref)
    if body.version == now:
        return None
    if alias is None and len(state.aliases) >= ALIASES:
        limit = (("limit", str(ALIASES)),)
        return Rejected(Reason.LIMIT_EXCEEDED, f"{ALIASES} aliases are set, the limit; remove some", limit)
    if body.version:
        draft.emit(mev.AliasMoved(body.name, body.alias, body.version, now, body.note, body.request_id))
    else:
        draft.emit(mev.AliasRemoved(body.name, body.alias, now, body.note, body.request_id))
    return None


def set_residency(draft: Draft, body: cmd.SetResidency) -> Rejected | None:
    """Says where a version is to be kept loaded; the nodes for it are chosen in the same record."""
    state = draft.state
    malformed = _refused(_residency_violations(body))
    if malformed is not None:
        return malformed
    values = (
        None if body.replica_count is None else str(body.replica_count),
        None if body.pinned is None else str(body.pinned),
        None if body.needs is None else repr(body.needs),
    )
    model = resolve(state, body.model)
    repeated = _repeated(state, body.request_id, _named_then(state, body) or (model.ref if model else ""), values)
    if repeated is not None:
        return repeated.rejected
    if model is None:
        return unknown_model(state, body.model)
    before = state.residencies.get(model.ref)
    wanted = mev.ResidencySet(
        model=model.ref,
        replica_count=_given(body.replica_count, before.replica_count if before else 1),
        pinned=_given(body.pinned, before.pinned if before else False),
        needs=body.needs or (before.needs if before else Needs()),
        request_id=body.request_id,
    )
    if before is None and wanted.replica_count == 0:
        return None
    if before is None and len(state.residencies) >= RESIDENCIES:
        return Rejected(
            Reason.LIMIT_EXCEEDED,
            f"{RESIDENCIES} model versions are kept loaded, the limit; unload some",
            (("limit", str(RESIDENCIES)),),
        )
    same = before and (before.replica_count, before.pinned, before.needs)
    if same != (wanted.replica_count, wanted.pinned, wanted.needs):
        draft.emit(wanted)
    return None


def _named_then(state: State, body: cmd.SetResidency) -> str | None:
    """The version that a repeated request was about: what its name stood for then, whatever has become of it."""
    known = next((r.subject for r in state.model_requests if r.request_id == body.request_id), "")
    named = parse_model(body.model)
    same = known == body.model if named and named[1] else known.partition("@")[0] == body.model.partition("@")[0]
    return known if same else None


def remove_model(draft: Draft, body: cmd.RemoveModel) -> Rejected | None:
    """Takes a version out of the registry. What refers to it stands against that, or goes with it where forced."""
    state = draft.state
    malformed = _refused(_removal_violations(body))
    if malformed is not None:
        return malformed
    ref = ModelRef(body.model)
    repeated = _repeated(state, body.request_id, ref, ("removed",))
    if repeated is not None:
        return repeated.rejected
    model = state.models.get(ref)
    if model is None:
        return unknown_model(state, ref)
    users = list(_users(state, model))
    if users and not body.force:
        named = ", ".join(users[:5]) + (", ..." if len(users) > 5 else "")
        return Rejected(
            Reason.MODEL_IN_USE,
            f"{ref} is in use by {named}: move, unload or wait, or remove it all the same with --force",
            (("model", ref), ("users", ",".join(users[:20]))),
        )
    for alias in sorted(state.aliases.values()):
        if alias.model == ref:
            draft.emit(mev.AliasRemoved(alias.name, alias.alias, alias.version, body.note, RequestId("")))
    residency = state.residencies.get(ref)
    if residency is not None:
        draft.emit(mev.ResidencySet(ref, 0, pinned=False, needs=residency.needs, request_id=RequestId("")))
        if residency.nodes:
            draft.emit(mev.ReplicasReleased(ref, residency.nodes, mev.ReleaseCause.NOT_WANTED))
    draft.emit(mev.ModelRemoved(ref, bool(users), body.note, body.request_id))
    return None


def report_replica(draft: Draft, body: cmd.ReportReplica) -> Rejected | None:
    """Notes that a node could not load what it is to keep; another node is chosen in the same record."""
    node = draft.state.nodes.get(body.node_id)
    if node is None or node.state.gone or node.spec.boot_id != body.boot_id:
        return None
    for ref, residency in sorted(draft.state.residencies.items()):
        if body.node_id in residency.nodes and draft.state.models[ref].digest == body.digest:
            draft.emit(mev.ReplicaFailed(ref, body.node_id, body.boot_id, body.failure))
    return None


class _Repeat:
    """A request whose id is known: nothing to do, or refused where it asks for something else."""

    __slots__ = ("rejected",)

    def __init__(self, rejected: Rejected | None) -> None:
        self.rejected = rejected


def _repeated(state: State, request_id: RequestId, subject: str, values: tuple[str | None, ...]) -> _Repeat | None:
    known = next((r for r in state.model_requests if r.request_id == request_id), None)
    if known is None:
        return None
    if _same(known, subject, values):
        return _Repeat(None)
    return _Repeat(
        Rejected(
            Reason.REQUEST_ID_REUSED,
            f"request_id {request_id!r} changed {known.subject} in another way before; choose a new one",
            (("model", known.subject), ("request_id", request_id)),
        )
    )


def _same(known: ModelRequest, subject: str, values: tuple[str | None, ...]) -> bool:
    if known.subject != subject or len(known.values) != len(values):
        return False
    return all(given is None or given == was for given, was in zip(values, known.values, strict=True))


def _highest(state: State, model: Model) -> int:
    """The highest version of a name that there ever was."""
    removed = (other.version for other in state.removed.values() if other.name == model.name)
    return max(state.latest.get(model.name, 0), *removed, 0)


def _users(state: State, model: Model) -> Iterator[str]:
    """What refers to a version, in words."""
    yield from (f"alias {alias.ref}" for alias in sorted(state.aliases.values()) if alias.model == model.ref)
    residency = state.residencies.get(model.ref)
    if residency is not None and residency.replica_count:
        yield f"its {'pinned ' if residency.pinned else ''}residency on {residency.replica_count} nodes"
    for job_id in sorted(state.open_jobs, key=lambda job_id: state.open_jobs[job_id]):
        used = state.jobs[job_id].model
        if used is not None and used.ref == model.ref:
            yield f"job {job_id}"


def _given(value: _Value | None, otherwise: _Value) -> _Value:
    return otherwise if value is None else value


def _refused(violations: Iterator[FieldViolation]) -> Rejected | None:
    found = tuple(violations)
    if not found:
        return None
    return Rejected(Reason.INVALID_ARGUMENT, f"{found[0].field} {found[0].description}", violations=found)


def _request_violations(request_id: str, note: str = "") -> Iterator[FieldViolation]:
    if not is_request_id(request_id):
        yield FieldViolation("request_id", f"must be {REQUEST_RULE}")
    yield from text_violations("note", note, limits.NOTE_BYTES)


def _alias_violations(body: cmd.MoveAlias) -> Iterator[FieldViolation]:
    yield from _request_violations(body.request_id, body.note)
    if not is_name(body.name):
        yield FieldViolation("name", f"must be {NAME_RULE}")
    if not is_alias(body.alias):
        yield FieldViolation("alias", f"must be {ALIAS_RULE}")
    if not 0 <= body.version <= limits.MODEL_VERSION_MAX:
        yield FieldViolation("version", f"must be at most {limits.MODEL_VERSION_MAX}")


def _residency_violations(body: cmd.SetResidency) -> Iterator[FieldViolation]:
    yield from _request_violations(body.request_id)
    if (body.replica_count or 0) > limits.FLEET_NODES:
        yield FieldViolation("replica_count", f"must be at most {limits.FLEET_NODES}, the most nodes of a fleet")
    if body.needs is not None:
        yield from label_violations("needs.node_labels", body.needs.node_labels)


def _removal_violations(body: cmd.RemoveModel) -> Iterator[FieldViolation]:
    yield from _request_violations(body.request_id, body.note)
    named = parse_model(body.model)
    if named is None or not named[1]:
        yield FieldViolation("model", f"must be {VERSION_RULE}: one version is removed at a time")


def _model_violations(model: Model) -> tuple[FieldViolation, ...]:
    violations: list[FieldViolation] = []
    if not is_name(model.name):
        violations.append(FieldViolation("name", f"must be {NAME_RULE}"))
    if not is_digest(model.digest):
        violations.append(FieldViolation("digest", f"must be {DIGEST_RULE}"))
    if not is_digest(model.artifact.root):
        violations.append(FieldViolation("artifact.root", f"must be {DIGEST_RULE}"))
    if not 0 <= model.version <= limits.MODEL_VERSION_MAX:
        violations.append(FieldViolation("version", f"must be 0 (the next one) to {limits.MODEL_VERSION_MAX}"))
    if not model.inputs:
        violations.append(FieldViolation("inputs", "must name at least one input"))
    if not model.outputs:
        violations.append(FieldViolation("outputs", "must name at least one output"))
    violations.extend(label_violations("labels", model.labels))
    for field, text in zip(("licence", "source", "description", "author"), _told(model), strict=True):
        violations.extend(text_violations(f"provenance.{field}", text, PROVENANCE_BYTES))
    return tuple(violations)


def _told(model: Model) -> tuple[str, str, str, str]:
    provenance = model.provenance or Provenance()
    return provenance.licence, provenance.source, provenance.description, provenance.author

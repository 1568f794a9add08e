"""`hivefold model alias|ps|load|unload|pin|rm`: names for versions, and where they are kept loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from cli.address import Target, listed
from cli.labels import parse_labels
from cli.loading import Patience
from cli.output import note, show_many, show_one
from cli.sizes import Size
from hivefold.errors import InvalidRequestError

if TYPE_CHECKING:
    from hivefold.v1 import model_service_pb2

_Labels = Annotated[list[str] | None, Parameter(negative=())]


def alias(
    alias: str,
    version: PositiveInt | None = None,
    *,
    expect: NonNegativeInt | None = None,
    remove: Annotated[bool, Parameter(name=("--rm",), negative=())] = False,
    note: str = "",
    request_id: str = "",
    target: Target = Target(),  # noqa: B008 - frozen
) -> None:
    """Let a name such as digits@prod stand for a version of its model, at once and for everybody.

    Parameters
    ----------
    alias
        NAME@ALIAS, e.g. digits@prod.
    version
        The version that it is to stand for, e.g. 4.
    expect
        Move it only if it stands for this version now; 0: only if it is new.
    remove
        Remove the alias instead.
    note
        Why, for the record.
    request_id
        Names this request, so that it can be repeated safely.
    """
    from cli.views.models import alias_facts

    if "@" not in alias:
        raise InvalidRequestError(f"{alias!r} is no alias: give NAME@ALIAS, e.g. {alias}@prod")
    if (version is None) is not remove:
        raise InvalidRequestError(f"say what {alias} is to stand for: hivefold model alias {alias} VERSION, or --rm")
    if version is None:
        target.ask(
            lambda fleet: fleet.models.remove_alias(alias, expected_version=expect, note=note, request_id=request_id)
        )
        show_one(target, {"removed": alias}, lambda: f"removed {alias}")
        return
    moved = target.ask(
        lambda fleet: fleet.models.move_alias(alias, version, expected_version=expect, note=note, request_id=request_id)
    )
    show_one(target, moved, lambda: alias_facts(moved))


def ps(model: str = "", *, target: Target = Target()) -> None:  # noqa: B008 - frozen
    """List where models are loaded, are being loaded, or ought to be.

    Parameters
    ----------
    model
        Only NAME, NAME@VERSION or NAME@ALIAS.
    """
    from cli.views.models import replicas_table

    replicas = target.ask(lambda fleet: listed(fleet.models.replicas(model)))
    show_many(target, "replicas", replicas, lambda: replicas_table(replicas))


def load(
    model: str,
    *,
    replicas: PositiveInt | None = None,
    pinned: Annotated[bool | None, Parameter(name=("--pin",), negative="--no-pin")] = None,
    label: _Labels = None,
    memory: Size | None = None,
    gpus: NonNegativeInt | None = None,
    patience: Patience = Patience(),  # noqa: B008 - frozen
    request_id: str = "",
    target: Target = Target(),  # noqa: B008 - frozen
) -> None:
    """Keep a model version loaded on as many nodes as you say, whichever nodes come and go.

    What you leave out stays as it was; the first time that is one node, any node. What the nodes must have is said
    as a whole: with any of --label, --memory and --gpus the others of them count as not asked for. So --gpus 0 alone
    asks for nothing any more. Comes back once that is recorded; with --wait once the nodes have loaded it.

    Parameters
    ----------
    model
        NAME for the latest version, NAME@VERSION or NAME@ALIAS: the version that this stands for now.
    replicas
        Nodes that are to have it.
    pinned
        These nodes may not unload it to make room for others.
    label
        NAME=VALUE that these nodes must carry; may be repeated.
    memory
        Memory that they must have, in bytes or as 512MiB, 2GiB.
    gpus
        GPUs that they must have.
    request_id
        Names this request, so that it can be repeated safely.
    """
    from hivefold.v1.job_pb2 import Needs

    needs = None
    if label or memory is not None or gpus is not None:
        needs = Needs(node_labels=parse_labels(label or ()), memory_bytes=memory or 0, gpu_count=gpus or 0)
    residency = patience.ask(
        target,
        lambda fleet: fleet.models.keep(model, replicas=replicas, pinned=pinned, needs=needs, request_id=request_id),
    )
    tell(target, residency)


def unload(model: str, *, request_id: str = "", target: Target = Target()) -> None:  # noqa: B008 - frozen
    """Keep a model version loaded no longer: nodes unload it once nobody uses it. A request loads it again.

    Parameters
    ----------
    model
        NAME for the latest version, NAME@VERSION or NAME@ALIAS.
    request_id
        Names this request, so that it can be repeated safely.
    """
    tell(target, target.ask(lambda fleet: fleet.models.keep(model, replicas=0, request_id=request_id)))


def pin(
    model: str,
    *,
    off: Annotated[bool, Parameter(negative=())] = False,
    patience: Patience = Patience(),  # noqa: B008 - frozen
    request_id: str = "",
    target: Target = Target(),  # noqa: B008 - frozen
) -> None:
    """Forbid nodes to unload a model version that they keep; one that is not kept yet is loaded on one node.

    Parameters
    ----------
    model
        NAME for the latest version, NAME@VERSION or NAME@ALIAS.
    off
        Allow it again.
    request_id
        Names this request, so that it can be repeated safely.
    """
    residency = patience.ask(target, lambda fleet: fleet.models.keep(model, pinned=not off, request_id=request_id))
    tell(target, residency)


def rm(
    model: str,
    *,
    force: Annotated[bool, Parameter(negative=())] = False,
    note: str = "",
    request_id: str = "",
    target: Target = Target(),  # noqa: B008 - frozen
) -> None:
    """Remove a model version. Its bytes go when nothing refers to them; its number is never given again.

    Refused while an alias, a residency or an open job refers to it.

    Parameters
    ----------
    model
        NAME@VERSION.
    force
        Remove it all the same: aliases and residency go with it, open jobs end as if nothing had happened.
    note
        Why, for the record.
    request_id
        Names this request, so that it can be repeated safely.
    """
    target.ask(lambda fleet: fleet.models.remove(model, force=force, note=note, request_id=request_id))
    show_one(target, {"removed": model}, lambda: f"removed {model}")


def tell(target: Target, residency: model_service_pb2.Residency) -> None:
    """Prints where a model is to be kept, and says so where nodes are missing."""
    from cli.views.models import residency_facts, staying

    show_one(target, residency, lambda: residency_facts(residency))
    missing = residency.replica_count - staying(residency)
    if missing > 0 and target.output == "text":
        why = "see why above" if residency.refusals else "there is no other node: start one"
        note(f"{missing} of {residency.replica_count} replicas have no node yet: {why}")

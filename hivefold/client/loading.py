"""Waits until a model version is loaded on as many nodes as it is to be kept on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from hivefold import limits
from hivefold.client.messages import enum_name, refused
from hivefold.client.watching import resumed
from hivefold.errors import ConflictError, Reason, UnavailableError
from hivefold.v1 import error_pb2
from hivefold.v1 import model_service_pb2 as pb

_NODES_NAMED: Final = 8
"""Most nodes that are named in one line."""
_UNWANTED_LOOKS: Final = 2
"""Looks in a row that find a version kept nowhere before that is believed: a standby that is asked after its leader
was lost may be a moment behind the wish."""


@dataclass(frozen=True, slots=True)
class Loading:
    """How far a model version is loaded where it is to be kept."""

    residency: pb.Residency
    """On how many nodes it is wanted, on which it is to be, on how many of them it is loaded."""
    missing: Mapping[str, str]
    """Of each node that has it not: how far it is, or why it could not load it or was not chosen."""

    @property
    def complete(self) -> bool:
        """Whether as many nodes as are wanted have it loaded, and none of them only until another one has."""
        residency = self.residency
        return residency.loaded_count >= residency.replica_count > 0 and not residency.refusals

    @property
    def why(self) -> str:
        """What is missing, node by node, in one line; empty when nothing is known to be."""
        told = [f"{node_id}: {what}" for node_id, what in self.missing.items()]
        more = len(told) - _NODES_NAMED
        if more > 0:
            told[_NODES_NAMED:] = [f"{more} more nodes"]
        if len(self.residency.node_ids) < self.residency.replica_count and not self.residency.refusals:
            told.append("there is no other node: start one")
        return "; ".join(told)


def missing(residency: pb.Residency, replicas: Mapping[str, pb.Replica]) -> dict[str, str]:
    """Of each node that has a version not: how far it is, or why it could not load it or was not chosen.

    `replicas` are those of the version, by node.
    """
    named = sorted(set(residency.node_ids).union(node_id for node_id, r in replicas.items() if r.HasField("failure")))
    told = {node_id: _told(replicas.get(node_id, pb.Replica(state=pb.REPLICA_STATE_ORDERED))) for node_id in named}
    told |= {refusal.node_id: refusal.detail for refusal in residency.refusals}
    return {node_id: what for node_id, what in told.items() if what}


async def until_loaded(
    look: Callable[[], Awaitable[Loading]],
    *,
    since: pb.Residency,
    timeout_s: float,
    on_progress: Callable[[Loading], None] | None,
) -> pb.Residency:
    """Looks, with growing pauses, until as many nodes as are wanted have the version loaded.

    Answers from before `since` was asked for do not count. Raises UnavailableError (DEADLINE_EXCEEDED) after
    `timeout_s`, ConflictError (CANCELLED) where it is kept nowhere, InvalidRequestError for what is no time.
    """
    if not 0 <= timeout_s <= limits.LOADED_WAIT_MAX_S:
        raise refused("timeout_s", f"must be from 0 to {limits.LOADED_WAIT_MAX_S:.0f} seconds, is {timeout_s}")
    wait_ms, unwanted = limits.LOADED_LOOK_MS, 0
    seen = await resumed(look)
    try:
        async with asyncio.timeout(timeout_s):
            while not seen.complete or _is_older(seen.residency, since):
                unwanted = 0 if seen.residency.replica_count else unwanted + 1
                if unwanted == _UNWANTED_LOOKS:
                    raise _unwanted(seen.residency.model)
                if on_progress is not None:
                    on_progress(seen)
                await asyncio.sleep(wait_ms / 1000)
                wait_ms = min(2 * wait_ms, limits.LOADED_LOOK_MAX_MS)
                seen = await resumed(look)
    except TimeoutError:
        raise _late(seen, timeout_s) from None
    return seen.residency


def _told(replica: pb.Replica) -> str:
    """How far a replica is, for people; empty for one that is loaded."""
    match replica.state:
        case pb.REPLICA_STATE_LOADED:
            return ""
        case pb.REPLICA_STATE_FETCHING:
            done = f", {100 * replica.bytes_done // replica.bytes_total} %" if replica.bytes_total else ""
            return f"fetches its file{done}"
        case pb.REPLICA_STATE_LOADING:
            return "loads it"
        case pb.REPLICA_STATE_FAILED:
            reason = enum_name(error_pb2.Reason, replica.failure.reason).removeprefix("REASON_")
            return f"could not load it ({reason}: {replica.failure.message})"
        case _:
            return "was told to load it, has not begun"


def _is_older(residency: pb.Residency, since: pb.Residency) -> bool:
    asked, told = since.set_time, residency.set_time
    return (told.seconds, told.nanos) < (asked.seconds, asked.nanos)


def _unwanted(model: str) -> ConflictError:
    name = model.partition("@")[0]
    return ConflictError(
        f"{model} is to be kept on no node, so there is nothing to wait for: say on how many it is to be kept; whether "
        f"it was unloaded meanwhile tells: hivefold log explain {name} --kind model",
        reason=Reason.CANCELLED,
        metadata={"model": model},
    )


def _late(seen: Loading, timeout_s: float) -> UnavailableError:
    residency = seen.residency
    model, loaded, wanted = residency.model, residency.loaded_count, residency.replica_count
    why = f" ({seen.why})" if seen.why else ""
    return UnavailableError(
        f"{model} is loaded on {loaded} of {wanted} nodes after {timeout_s:g} s{why}; it stays wanted: "
        f"wait again, for longer, or see how far it is with: hivefold model ps {model}",
        reason=Reason.DEADLINE_EXCEEDED,
        metadata={"model": model, "loaded_count": str(loaded), "replica_count": str(wanted)},
    )

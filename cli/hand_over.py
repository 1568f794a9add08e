"""`hivefold coordinator hand-over`: have another coordinator of the group lead."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from cli import words
from cli.address import Target
from cli.output import facts, note, show_one

if TYPE_CHECKING:
    from hivefold.client import Fleet
    from hivefold.v1 import log_service_pb2

_LOOK_S = 0.01
_WAIT_S = 30.0


def hand_over(*, request_id: str = "", target: Target = Target()) -> None:  # noqa: B008 - frozen
    """Have the leader end its term and another coordinator lead, as before its machine is taken down.

    The one that led goes on as a standby. Nothing that was acknowledged is lost, and clients go on by themselves.

    Parameters
    ----------
    request_id
        Goes with the call; a term is handed over once, however often that is asked for.
    """
    from hivefold.clock import stopwatch_ns

    async def ask(fleet: Fleet) -> tuple[log_service_pb2.GetHeadResponse, log_service_pb2.GetHeadResponse, float]:
        before = await fleet.log.head()
        began = stopwatch_ns()
        await fleet.log.hand_over(term=before.term, request_id=request_id)
        after = await _next_leader(fleet, before.term)
        return before, after, (stopwatch_ns() - began) / 1e9

    before, after, seconds = target.ask(ask)
    found: dict[str, Any] = {
        "endedTerm": str(before.term),
        "term": str(after.term),
        "coordinatorId": after.coordinator_id,
        "leaderAddress": after.leader_address,
        "seconds": seconds,
    }
    show_one(
        target,
        found,
        lambda: facts(
            [
                ("leads now", f"{after.coordinator_id} at {after.leader_address}, term {after.term}"),
                ("led before", f"{before.coordinator_id}, term {before.term}"),
                ("took", words.span(seconds)),
            ]
        ),
    )
    if after.coordinator_id == before.coordinator_id:
        note(f"no other coordinator was there to lead: {after.coordinator_id} leads again")


async def _next_leader(fleet: Fleet, ended: int) -> log_service_pb2.GetHeadResponse:
    """The head, once a later term has a leader. Raises UnavailableError when that takes too long."""
    from hivefold.errors import UnavailableError

    try:
        async with asyncio.timeout(_WAIT_S):
            while True:
                head = await fleet.log.head()
                if head.term > ended and head.leader_address:
                    return head
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise UnavailableError(
            f"term {ended} was handed over and nobody leads after {_WAIT_S:g} s; look with: hivefold doctor"
        ) from None

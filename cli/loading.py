"""Waiting for a model to be loaded, with progress on a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from cli.address import Target
from cli.output import note
from cli.progress import Bar
from hivefold import limits
from hivefold.errors import InvalidRequestError

if TYPE_CHECKING:
    from hivefold.client import Fleet, Loading
    from hivefold.v1.model_service_pb2 import Residency


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Patience:
    """Whether, and how long, a command waits until nodes have a model loaded."""

    wait: Annotated[bool, Parameter(negative=())] = False
    """Wait until as many nodes as are wanted have it loaded; where they have not in time, the exit code is 4."""
    timeout: Annotated[float | None, Parameter(validator=validators.Number(gte=0, lte=limits.LOADED_WAIT_MAX_S))] = None
    """Seconds that --wait waits at most; 600 where you do not say."""

    def ask(self, target: Target, question: Callable[[Fleet], Awaitable[Residency]]) -> Residency:
        """What `question` answers, once that is loaded where it is to be waited for.

        Raises InvalidRequestError for a time without a wait, before anything is sent.
        """
        if not self.wait:
            if self.timeout is not None:
                raise InvalidRequestError("--timeout says how long --wait waits: give --wait as well, or leave it out")
            return target.ask(question)
        timeout_s = limits.LOADED_WAIT_S if self.timeout is None else self.timeout

        async def answer(fleet: Fleet) -> Residency:
            return await wait_for(fleet, await question(fleet), timeout_s, notes=target.output == "text")

        return target.ask(answer)


async def wait_for(fleet: Fleet, asked: Residency, timeout_s: float, *, notes: bool) -> Residency:
    """What is kept, once it is loaded there; with `notes` a line says so where nodes are missing.

    Ctrl-C ends the waiting alone, and the person is told so.
    """
    noted = not notes

    def told(seen: Loading) -> None:
        nonlocal noted
        residency = seen.residency
        missing = residency.replica_count - len(residency.node_ids)
        if missing > 0 and not noted:
            noted = True
            note(f"{missing} of {residency.replica_count} replicas have no node yet ({seen.why}); waiting")
        extra = next((f"waits for {node_id}" for node_id in seen.missing), "")  # why, in full, is told at the end
        bar.update(residency.loaded_count, residency.replica_count or None, extra=extra)

    try:
        with Bar(f"{asked.model} loaded on", "nodes") as bar:
            return await fleet.models.wait_loaded(asked, timeout_s=timeout_s, on_progress=told)
    except asyncio.CancelledError:
        note(f"{asked.model} stays wanted; see how far it is with: hivefold model ps {asked.model}")
        raise

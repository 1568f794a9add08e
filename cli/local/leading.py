"""Which of a local group's coordinators leads, told whenever that changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from hivefold.errors import HivefoldError
from hivefold.limits import LOCAL_LEADER_S


async def follow_leader(addresses: Sequence[str], tell: Callable[[str], None]) -> None:
    """Calls `tell` with the leader's address, now and whenever another leads, until it is cancelled."""
    from hivefold.client import connect

    last = ""
    async with connect(",".join(addresses)) as fleet:
        while True:
            with contextlib.suppress(HivefoldError):
                leader = (await fleet.log.head()).leader_address
                if leader and leader != last:
                    last = leader
                    tell(leader)
            await asyncio.sleep(LOCAL_LEADER_S)

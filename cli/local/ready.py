"""Waits until a local fleet serves: its coordinator answers, and each node that was started has joined."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from cli.local.daemon import Daemon
from cli.local.supervisor import how_it_ended
from hivefold.client import connect
from hivefold.errors import ConfigError, UnavailableError
from hivefold.limits import LOCAL_POLL_S, LOCAL_READY_S
from hivefold.v1 import fleet_pb2


async def wait_until_ready(
    addresses: Sequence[str], nodes: Mapping[str, Daemon], daemons: Sequence[Daemon], announce: Callable[[str], None]
) -> None:
    """Waits until every coordinator answers and the one that leads lists all of `nodes` as online.

    Raises ConfigError when one of `daemons` ends meanwhile, UnavailableError when it takes too long; `announce` gets
    their last words.
    """
    ends = [asyncio.create_task(_ended(daemon, announce)) for daemon in daemons]
    joined = asyncio.create_task(_all_joined(addresses, nodes))
    try:
        async with asyncio.timeout(LOCAL_READY_S):
            done, _ = await asyncio.wait({joined, *ends}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
    except TimeoutError:
        for daemon in daemons:
            announce(f"{daemon.name} said last:\n{daemon.last_words()}")
        raise UnavailableError(f"the fleet is not ready after {LOCAL_READY_S:g} s; its last words are above") from None
    finally:
        for task in (joined, *ends):
            task.cancel()


async def _ended(daemon: Daemon, announce: Callable[[str], None]) -> None:
    code = await daemon.wait()
    announce(daemon.last_words())
    raise ConfigError(f"{daemon.name} did not start ({how_it_ended(code)}); its last words are above")


async def _all_joined(addresses: Sequence[str], nodes: Mapping[str, Daemon]) -> None:
    # A gRPC channel that finds nobody waits longer and longer; a plain connection tells at once.
    for address in addresses:
        while not await _listens(address):
            await asyncio.sleep(LOCAL_POLL_S)
    async with connect(",".join(addresses)) as fleet:
        while True:
            try:
                online = {
                    node.spec.node_id: node.spec.pid
                    async for node in fleet.nodes.list()
                    if node.state == fleet_pb2.NODE_STATE_ONLINE
                }
            except UnavailableError:
                online = {}
            # The process tells this start's node from the one of an earlier start that was killed.
            if all(online.get(node_id) == daemon.pid for node_id, daemon in nodes.items()):
                return
            await asyncio.sleep(LOCAL_POLL_S)


async def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True

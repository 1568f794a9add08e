"""The coordinator's composition root: opens the connections, takes the lead, serves until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Final

import structlog
import uvloop

from coordinator.feed import Feed
from coordinator.lead import Ends, Leadership, LeadSettings, take_lead
from coordinator.presence import PresenceSettings
from coordinator.servicers import Backing, services
from hivefold import limits, observe
from hivefold.blobs.jetstream import JetStreamChunks
from hivefold.bus.connection import connect
from hivefold.bus.events import NatsEventSender
from hivefold.bus.results import NatsResultReceiver
from hivefold.bus.signals import NatsSignals
from hivefold.bus.streams import StreamSettings, prepare_streams
from hivefold.bus.work import NatsWorkSender
from hivefold.clock import SystemClock
from hivefold.config import CoordinatorConfig
from hivefold.entropy import SystemEntropy
from hivefold.errors import HivefoldError, LogError, NotLeaderError
from hivefold.log.jetstream import open_log
from hivefold.log.stream import LogSettings
from hivefold.memory import keep_freed_memory
from hivefold.rpc.server import RpcServer
from hivefold.server.durability import check_server
from hivefold.version import VERSION

_log = structlog.get_logger(__name__)
_USUAL_PORT: Final = 7400
EXIT_FAILED: Final = 1
EXIT_DEPOSED: Final = 75
"""EX_TEMPFAIL: another coordinator leads or the log gave no answer; starting again replays and resolves it."""


def run(config: CoordinatorConfig) -> int:
    """Runs a coordinator until SIGTERM or SIGINT; gives the exit code."""
    observe.configure_logging()
    keep_freed_memory()
    telemetry = observe.start_telemetry("hivefold-coordinator", config.coordinator_id, VERSION)
    try:
        uvloop.run(_serve_until_signal(config))
    except (HivefoldError, BaseExceptionGroup) as error:
        return _said(error)
    finally:
        telemetry.shutdown()
    return 0


async def _serve_until_signal(config: CoordinatorConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(config, stop)


async def serve(config: CoordinatorConfig, stop: asyncio.Event) -> None:
    """Leads and serves until `stop` is set.

    Raises ConfigError, BrokerUnavailableError at the start; LogError or NotLeaderError (in a group) when it
    may no longer lead.
    """
    async with AsyncExitStack() as stack:
        core = await connect(config.core, wait_s=limits.BROKER_START_S)
        stack.push_async_callback(core.close)
        facts = await check_server(core, config.durability, system=config.system, monitor_url=config.monitor_url)
        nodes = await connect(config.nodes, wait_s=limits.BROKER_START_S)
        stack.push_async_callback(nodes.close)
        log = await open_log(core, LogSettings(replicas=config.log_replicas, max_bytes=config.log_max_bytes))
        await prepare_streams(nodes, StreamSettings(replicas=config.log_replicas))
        ends = Ends(log, NatsSignals(nodes), NatsWorkSender(nodes), NatsResultReceiver(nodes))
        clock, entropy = SystemClock(), SystemEntropy()
        backing = Backing(
            log=log,
            results=ends.results,
            chunks=JetStreamChunks(nodes),
            clock=clock,
            entropy=entropy,
            durability=facts.durability,
        )
        rpc = RpcServer(services(backing))
        address = rpc.bind(
            config.host, _USUAL_PORT if config.port is None else config.port, next_free=config.port is None
        )
        presence = PresenceSettings(
            address, suspect_after_ms=config.suspect_after_ms, lost_after_ms=config.lost_after_ms
        )
        lead = await take_lead(ends, clock, entropy, LeadSettings(config.coordinator_id, VERSION, presence))
        _spare_the_collector()
        backing.lead(lead)
        await rpc.start()
        stack.push_async_callback(rpc.stop)
        feed = Feed(lead.writer, log, NatsEventSender(nodes), ends.signals)
        _log.info("serving", address=address, durability=facts.durability)
        await _run_all(lead, (feed.run(), _tell_health(rpc, lead, ends), _until(stop)))


async def _run_all(lead: Leadership, others: tuple[Coroutine[None, None, None], ...]) -> None:
    """Runs all parts; the first that ends, ends all."""
    try:
        async with asyncio.TaskGroup() as group:
            for part in (*lead.parts(), *others):
                group.create_task(part)
    except* _StoppedError:
        _log.info("stopping", sequence=lead.writer.state.sequence)


class _StoppedError(Exception):
    """The process was told to stop."""


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()
    raise _StoppedError


async def _tell_health(rpc: RpcServer, lead: Leadership, ends: Ends) -> None:
    while True:
        await rpc.set_serving(serving=lead.writer.leading and ends.signals.connected)
        await asyncio.sleep(limits.HEALTH_INTERVAL_S)


def _spare_the_collector() -> None:
    """The replayed state has no cycles: the collector need not look at it again, and at new state seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _said(error: BaseException) -> int:
    """Says why the process ends and gives its exit code. Raises what is not one of hivefold's errors again."""
    leaves = _leaves(error)
    known = [leaf for leaf in leaves if isinstance(leaf, HivefoldError)]
    if len(known) < len(leaves):
        raise error
    for leaf in known:
        _log.error("coordinator stops", reason=leaf.reason, error=leaf.message)
    print(f"hivefold coordinator: {known[0].message}", file=sys.stderr)  # noqa: T201 - the last words
    return EXIT_DEPOSED if isinstance(known[0], NotLeaderError | LogError) else EXIT_FAILED


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]

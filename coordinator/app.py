"""The coordinator's composition root: opens the connections, joins the group, serves until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import structlog
import uvloop

from coordinator.checkpoints import Signing
from coordinator.index import JobIndex
from coordinator.job_keys import JobKeys
from coordinator.lead import Ends, LeadSettings
from coordinator.member import Member, leaves
from coordinator.presence import PresenceSettings
from coordinator.segment_care import SegmentCare
from coordinator.servicers import Backing, services
from coordinator.snapshots import Snapshotter, restore
from coordinator.standby import Standby
from hivefold import limits, observe
from hivefold.blobs.jetstream import JetStreamChunks
from hivefold.blobs.keys_jetstream import open_keys
from hivefold.bus.checkpoints import NatsCheckpoints
from hivefold.bus.connection import connect
from hivefold.bus.events import NatsEventSender
from hivefold.bus.link import Link
from hivefold.bus.results import NatsResultReceiver
from hivefold.bus.signals import NatsSignals
from hivefold.bus.streams import INFERENCE, StreamSettings, prepare_streams
from hivefold.bus.work import NatsWorkSender
from hivefold.clock import Clock, SystemClock
from hivefold.config import CoordinatorConfig
from hivefold.config.daemons import KEY_FILE
from hivefold.entropy import SystemEntropy
from hivefold.errors import ConfigError, HivefoldError, LogCorruptError, LogError, UnavailableError
from hivefold.lease.campaign import Campaign
from hivefold.lease.jetstream import open_lease
from hivefold.lease.port import Holder
from hivefold.log.archive import Archive
from hivefold.log.jetstream import JetStreamEventLog, open_log
from hivefold.log.mirror import Mirrors
from hivefold.log.snapshots import open_snapshots
from hivefold.log.stream import LogSettings
from hivefold.memory import keep_freed_memory
from hivefold.proof.key_file import KeyFile
from hivefold.rpc.server import RpcServer
from hivefold.server.durability import check_server
from hivefold.version import VERSION

_log = structlog.get_logger(__name__)
INDEX_FILE: Final = "ended-jobs.sqlite"
_USUAL_PORT: Final = 7400
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_DEPOSED: Final = 75
"""EX_TEMPFAIL: another coordinator leads, or the server or the log gave no answer: starting again may help."""


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
    """Follows, leads when it is this coordinator's turn, and serves until `stop` is set.

    Raises ConfigError, BrokerUnavailableError at the start; LogError (in a group) when it cannot go on.
    """
    async with AsyncExitStack() as stack:
        core = await connect(config.core, wait_s=limits.BROKER_START_S)
        stack.push_async_callback(core.close)
        facts = await check_server(core, config.durability, system=config.system, monitor_url=config.monitor_url)
        nodes = await connect(config.nodes, wait_s=limits.BROKER_START_S)
        stack.push_async_callback(nodes.close)
        log = await open_log(core, _log_settings(config))
        lease = await open_lease(core, ttl_s=config.lease_ttl_s, replicas=config.log_replicas)
        await prepare_streams(nodes, StreamSettings(replicas=config.log_replicas))
        clock, entropy = SystemClock(), SystemEntropy()
        care = await _care(config, log, clock, stack)
        keys = JobKeys(await open_keys(core, entropy, config.log_replicas), JetStreamChunks(nodes))
        backing = Backing(
            log=log,
            results=NatsResultReceiver(nodes),
            inferences=NatsResultReceiver(nodes, stream=INFERENCE),
            job_keys=keys,
            clock=clock,
            entropy=entropy,
            signed=NatsCheckpoints(nodes),
            places=care.places,
            durability=facts.durability,
            coordinator_id=config.coordinator_id,
        )
        rpc = RpcServer(services(backing))
        address = rpc.bind(
            config.host, _USUAL_PORT if config.port is None else config.port, next_free=config.port is None
        )
        campaign = Campaign(lease, clock, Holder(config.coordinator_id, address, entropy.draw(12).hex()))
        backing.leader = lambda: campaign.leader.address if campaign.leader is not None else ""
        snapshots = await open_snapshots(core, replicas=config.log_replicas)
        start = await restore(snapshots, log)
        _spare_the_collector()
        member = Member(
            log=log,
            campaign=campaign,
            open_ends=lambda: _open_ends(
                config, log, keys, care, lambda: member.tenure is None or member.tenure.valid()
            ),
            clock=clock,
            entropy=entropy,
            settings=_lead_settings(config, address),
            stage=backing,
            hints=lambda nudge: _hints(core, nudge),
        )
        backing.hand_over = member.hand_over
        backing.follow(Standby(log, clock, start))
        await rpc.start()
        stack.push_async_callback(rpc.stop)
        _log.info("serving", address=address, durability=facts.durability, sequence=start.state.sequence)
        backing.index = JobIndex(config.data_dir / INDEX_FILE, log, lambda: backing.source)
        snapshotter = Snapshotter(
            snapshots, entropy, lambda: backing.source, lambda: member.tenure is not None, config.snapshot_records
        )
        for beside in (_tell_health(rpc, member), snapshotter.run(), backing.index.run()):
            stack.push_async_callback(_ended, asyncio.create_task(beside))
        await member.run(start, stop)
        _log.info("stopping", sequence=backing.source.state.sequence)


def _lead_settings(config: CoordinatorConfig, address: str) -> LeadSettings:
    presence = PresenceSettings(address, suspect_after_ms=config.suspect_after_ms, lost_after_ms=config.lost_after_ms)
    return LeadSettings(config.coordinator_id, VERSION, presence)


def _log_settings(config: CoordinatorConfig) -> LogSettings:
    return LogSettings(
        replicas=config.log_replicas,
        max_bytes=config.log_max_bytes,
        segment_max_records=config.segment_max_records,
        segment_max_bytes=config.segment_max_bytes,
        archive=_archive(config).directory,
    )


def _archive(config: CoordinatorConfig) -> Archive:
    return Archive(Path(config.archive_dir) if config.archive_dir else None)


async def _care(config: CoordinatorConfig, log: JetStreamEventLog, clock: Clock, stack: AsyncExitStack) -> SegmentCare:
    """What looks after the segments, with the mirrors made where there is an account for them."""
    mirrors = None
    if config.audit is not None:
        audit = await connect(config.audit, wait_s=limits.BROKER_START_S)
        stack.push_async_callback(audit.close)
        mirrors = Mirrors(audit, replicas=config.log_replicas)
    care = SegmentCare(log, _archive(config), mirrors, clock, keep=config.keep_segments)
    await care.prepare()
    return care


@asynccontextmanager
async def _open_ends(
    config: CoordinatorConfig,
    log: JetStreamEventLog,
    keys: JobKeys,
    care: SegmentCare,
    may_act: Callable[[], bool],
) -> AsyncIterator[Ends]:
    """The bus of one term: with its connection go all its subscriptions, so that none outlives the term."""
    link = await connect(config.nodes, wait_s=limits.BROKER_START_S)
    caring = asyncio.create_task(care.run())
    try:
        yield Ends(
            log,
            NatsSignals(link),
            NatsWorkSender(link),
            NatsResultReceiver(link, may_act),
            keys,
            NatsEventSender(link),
            Signing(NatsCheckpoints(link), KeyFile(config.key_file or config.data_dir / KEY_FILE), SystemEntropy()),
            inferences=NatsResultReceiver(link, may_act, stream=INFERENCE),
        )
    finally:
        caring.cancel()
        await link.close()


@asynccontextmanager
async def _hints(core: Link, nudge: Callable[[], None]) -> AsyncIterator[None]:
    """Nudges whenever somebody publishes to the log."""
    number = await core.listen("log.>", lambda _subject, _reply, _data, _headers: nudge())
    try:
        yield
    finally:
        await core.unlisten(number)


async def _tell_health(rpc: RpcServer, member: Member) -> None:
    while True:
        await rpc.set_serving(serving=member.healthy)
        await asyncio.sleep(limits.HEALTH_INTERVAL_S)


async def _ended(task: asyncio.Task[None]) -> None:
    """Ends a task and lets it put away what it has."""
    task.cancel()
    await asyncio.wait({task})


def _spare_the_collector() -> None:
    """The replayed state has no cycles: the collector need not look at it again, and at new state seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _said(error: BaseException) -> int:
    """Says why the process ends and gives its exit code. Raises what is not one of hivefold's errors again."""
    found = leaves(error)
    known = [leaf for leaf in found if isinstance(leaf, HivefoldError)]
    if len(known) < len(found):
        raise error
    for leaf in known:
        _log.error("coordinator stops", reason=leaf.reason, error=leaf.message)
    print(f"hivefold coordinator: {known[0].message}", file=sys.stderr)  # noqa: T201 - the last words
    if isinstance(known[0], ConfigError):
        return EXIT_USAGE
    passing = isinstance(known[0], UnavailableError | LogError) and not isinstance(known[0], LogCorruptError)
    return EXIT_DEPOSED if passing else EXIT_FAILED

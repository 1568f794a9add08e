"""The node's composition root: the only place that makes adapters. Everything else gets them."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import structlog
import uvloop

from actors.bridge import Outlet, ask
from actors.model import ModelBehavior
from actors.probe import ProbeBehavior
from actors.probes.host import HostProbe
from actors.probes.memory import host_memory
from actors.probes.nvml import NvmlProbe
from actors.reader import ReaderBehavior
from actors.runtime import ActorRef, Failed, spawn
from actors.session import Backend
from actors.telemetry import Measure, TelemetryBehavior
from hivefold import limits, observe
from hivefold.blobs.jetstream import JetStreamChunks
from hivefold.bus.checkpoints import NatsCheckpoints
from hivefold.bus.connection import connect
from hivefold.bus.link import Link
from hivefold.bus.results import NatsResultSender
from hivefold.bus.signals import NatsSignals
from hivefold.bus.work import NatsWorkReceiver
from hivefold.clock import Clock, SystemClock
from hivefold.config import NodeConfig
from hivefold.entropy import SystemEntropy, jitter
from hivefold.errors import ConfigError, HivefoldError, Reason, UnavailableError
from hivefold.ids import BootId, NodeId
from hivefold.memory import keep_freed_memory
from hivefold.oip.limits import FORWARD_CHANNELS
from hivefold.oip.schema import SERVICE
from hivefold.proof.extension import WITNESS_FILE
from hivefold.rpc import RpcServer
from hivefold.rpc.passing import Passing
from hivefold.v1 import fleet_pb2, telemetry_pb2
from hivefold.version import VERSION
from node.agent import Agent
from node.content import Content
from node.core import NodeCore
from node.identity import held_data_dir, node_identity
from node.infer import InferRunner
from node.keeper import Keeper
from node.lanes import Lanes
from node.models import ModelShelf
from node.residency.peaks import Peaks
from node.residency.policy import Rules
from node.residency.room import Room
from node.servicers import inference_service, node_service
from node.serving.audit import Ledger
from node.serving.audit_spool import Spool
from node.serving.auditor import Auditor
from node.serving.catalogue import Catalogue
from node.serving.inference import Inference
from node.serving.neighbours import hear_neighbours
from node.serving.peers import Peers
from node.serving.registry import FleetRegistry
from node.telemetry import TelemetryLoop, export_metrics
from node.uplink import Uplink
from node.witness import Witness

_log = structlog.get_logger(__name__)
_USUAL_PORT: Final = 7410
_JOIN_S: Final = 1.0
"""How long the actors may take to end once the node has left."""
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNAVAILABLE: Final = 4


def run(config: NodeConfig) -> int:
    """Runs a node until SIGTERM or SIGINT, then drains; gives the exit code."""
    # Nodes do no linear algebra in NumPy: its thread pool would only take memory.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    observe.configure_logging()
    keep_freed_memory()
    hung: list[str] = []
    code = 0
    try:
        uvloop.run(_serve_until_signal(config, hung))
    except ConfigError as error:
        code = _said(error, EXIT_USAGE)
    except UnavailableError as error:
        code = _said(error, EXIT_UNAVAILABLE)
    except HivefoldError as error:
        code = _said(error, EXIT_FAILED)
    if hung:
        # A runtime in the middle of a batch cannot be interrupted; the interpreter must not be torn down under it.
        _log.warning("actor.left_behind", actors=hung)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


async def _serve_until_signal(config: NodeConfig, hung: list[str]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(config, stop, hung)


async def serve(config: NodeConfig, stop: asyncio.Event, hung: list[str]) -> None:
    """Works until `stop` is set; names in `hung` the actors that did not end.

    Raises ConfigError or BrokerUnavailableError at the start, later what breaks the node itself.
    """
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        stack.enter_context(held_data_dir(config.data_dir))
        node_id, boot_id = node_identity(config.data_dir, config.node_id, clock, SystemEntropy())
        actors = _Actors(config, node_id, hung)
        stack.push_async_callback(actors.stop)
        telemetry = observe.start_telemetry("hivefold-node", node_id, VERSION)
        stack.push_async_callback(asyncio.to_thread, telemetry.shutdown)
        link = await connect(config.broker, wait_s=limits.BROKER_START_S)
        stack.push_async_callback(link.close)
        await _run_node(config, stack, stop, _Boot(node_id, boot_id, clock, link, actors))


@dataclass(frozen=True, slots=True)
class _Boot:
    node_id: NodeId
    boot_id: BootId
    clock: Clock
    link: Link
    actors: _Actors


class _Actors:
    """The actors that a node always has. One that cannot be kept running ends the node."""

    def __init__(self, config: NodeConfig, node_id: NodeId, hung: list[str]) -> None:
        self._hung = hung
        self.failures: Outlet[Failed] = Outlet(limits.INBOX_MESSAGES)
        probes = (HostProbe((config.data_dir,), lambda: {os.getpid(): "node"}), NvmlProbe())
        watch = self.failures.tell
        self.sensor: ActorRef[Measure, telemetry_pb2.Reading] = spawn(
            lambda: TelemetryBehavior(node_id, probes), name="telemetry", watcher=watch
        )
        self.prober = spawn(ProbeBehavior, name="prober", watcher=watch)
        self.reader = spawn(ReaderBehavior, name="reader", watcher=watch)
        self.models: list[ActorRef[Any, Any]] = []

    async def watch(self) -> None:
        """Returns never. Raises HivefoldError when an actor was given up."""
        while True:
            failed = await self.failures.next()
            if failed.restart_after_ms is None:
                raise HivefoldError(
                    f"the node's actor {failed.actor} fails again and again: {failed.error!r}; see its log lines",
                    reason=Reason.INTERNAL,
                )

    async def stop(self) -> None:
        """Ends all actors; one that does not come back is left behind."""
        actors: tuple[ActorRef[Any, Any], ...] = (self.sensor, self.prober, self.reader, *self.models)
        for actor in actors:
            actor.stop()
        ended = await asyncio.gather(*(asyncio.to_thread(actor.join, _JOIN_S) for actor in actors))
        self._hung += [actor.name for actor, done in zip(actors, ended, strict=True) if not done]


async def _run_node(config: NodeConfig, stack: AsyncExitStack, stop: asyncio.Event, boot: _Boot) -> None:
    signals = NatsSignals(boot.link)
    slots, threads = _capacity(config)
    content = Content(JetStreamChunks(boot.link))
    shelf = _shelf(config, boot, content, (slots, threads))
    spec = fleet_pb2.NodeSpec(
        node_id=boot.node_id,
        boot_id=boot.boot_id,
        slot_count=slots,
        labels=config.labels,
        code_version=VERSION,
        host_name=platform.node(),
        pid=os.getpid(),
    )
    agent = Agent(
        spec=spec,
        core=NodeCore(boot.boot_id, slots + limits.NODE_PREFETCH),
        signals=signals,
        receiver=NatsWorkReceiver(boot.link, boot.node_id),
        uplink=Uplink(NatsResultSender(boot.link), signals, batch_outcomes=limits.NODE_QUEUE_TASKS),
        infer=InferRunner(content, shelf, boot.actors.reader, boot.clock, slots),
        prober=boot.actors.prober,
        witness=Witness(config.data_dir / WITNESS_FILE, NatsCheckpoints(boot.link), boot.clock),
        clock=boot.clock,
        drain_s=config.drain_s,
    )
    stack.callback(lambda: boot.actors.models.extend(shelf.stop()))
    stack.push_async_callback(shelf.save)
    export_metrics(lambda: agent.reading)
    auditor = _auditor(config, boot)
    stack.push_async_callback(auditor.close)
    inference = await _inference(stack, boot, shelf, agent, slots)
    inference.ledger = auditor.ledger
    agent.inferences_in_hand = lambda: inference.in_hand
    agent.names_changed = inference.catalogue.outdate
    agent.keeper = Keeper(boot.boot_id, shelf, inference.catalogue.find)
    stack.callback(agent.keeper.stop)
    rpc = RpcServer([node_service(agent.describe), inference_service(inference, lambda: not agent.core.leaving)])
    spec.grpc_address = rpc.bind(
        config.host, _USUAL_PORT if config.port is None else config.port, next_free=config.port is None
    )
    agent.reading = await ask(boot.actors.sensor, Measure(boot.clock.now_us()), deadline_ms=limits.PROBES_ASK_MS)
    _describe_hardware(spec, agent.reading)
    _spare_the_collector()
    await rpc.start()
    stack.push_async_callback(rpc.stop)
    _log.info("node.serving", node=spec.node_id, address=spec.grpc_address, slots=slots, threads=threads)
    loop = TelemetryLoop(boot.node_id, signals, boot.actors.sensor, boot.clock, agent.take_reading)
    await _until_first_ends(
        agent.run(stop), loop.run(), boot.actors.watch(), auditor.run(), _tell_health(rpc, agent, inference)
    )


def _auditor(config: NodeConfig, boot: _Boot) -> Auditor:
    """What records what is inferred. Raises ConfigError."""
    directory = config.data_dir / "inference-audit"
    try:
        spool = Spool(directory)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be used: {error}; choose a data_dir that can be written") from None
    return Auditor(
        node_id=boot.node_id,
        boot_id=boot.boot_id,
        ledger=Ledger(boot.clock.now_us()),
        spool=spool,
        sender=NatsResultSender(boot.link),
        clock=boot.clock,
        entropy=SystemEntropy(),
    )


async def _inference(stack: AsyncExitStack, boot: _Boot, shelf: ModelShelf, agent: Agent, slots: int) -> Inference:
    """What answers inference requests; its connections are closed with `stack`."""
    registry = FleetRegistry(lambda: agent.leader_address)
    stack.push_async_callback(registry.close)
    passing = Passing(f"/{SERVICE}/ModelInfer", channels=FORWARD_CHANNELS)
    stack.push_async_callback(passing.close)
    peers = Peers(lambda below: int(jitter() * below))
    neighbours = await hear_neighbours(NatsSignals(boot.link), boot.node_id, peers, boot.clock)
    stack.push_async_callback(neighbours.stop)
    return Inference(
        node_id=boot.node_id,
        catalogue=Catalogue(registry, boot.clock),
        shelf=shelf,
        peers=peers,
        passing=passing,
        clock=boot.clock,
        lanes=slots,
        free_bytes=lambda: agent.reading.memory_available_bytes if agent.reading else 0,
    )


def _shelf(
    config: NodeConfig,
    boot: _Boot,
    content: Content,
    capacity: tuple[int, int],
) -> ModelShelf:
    """The models, in the room that the configuration gives them."""
    slots, threads = capacity
    return ModelShelf(
        config.data_dir / "models",
        content,
        _model_factory(max(1, threads // slots)),
        lanes=Lanes(slots),
        clock=boot.clock,
        rules=Rules(models=config.models, idle_ms=int(config.model_idle_s * 1000)),
        memory=Room(config.model_memory, host_memory),
        peaks=Peaks(config.data_dir / "models" / "peaks.json", f"onnxruntime {version('onnxruntime')}"),
    )


def _spare_the_collector() -> None:
    """What a start leaves need not be looked at again, and what requests leave has no cycles: seldom is enough."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _capacity(config: NodeConfig) -> tuple[int, int]:
    """Attempts at once, and threads that all models together may use: by default one of each for every core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return config.slots or cores, config.threads or cores


def _model_factory(threads: int) -> Callable[[], ModelBehavior]:
    """Makes model behaviours. ONNX Runtime is imported for the first one: it is large."""
    backend: Backend | None = None

    def make() -> ModelBehavior:
        nonlocal backend
        if backend is None:
            from actors.backends.onnxruntime import OnnxRuntimeBackend

            backend = OnnxRuntimeBackend(threads)
        return ModelBehavior(backend)

    return make


def _describe_hardware(spec: fleet_pb2.NodeSpec, reading: telemetry_pb2.Reading) -> None:
    spec.cpu_count = reading.cpu_count
    spec.memory_bytes = reading.memory_total_bytes
    for gpu in reading.gpus:
        spec.gpus.add(product=gpu.product, memory_bytes=gpu.memory_total_bytes)


async def _tell_health(rpc: RpcServer, agent: Agent, inference: Inference) -> None:
    told: dict[str, bool] = {}
    while True:
        await rpc.set_serving(serving=agent.serving)
        # Without a coordinator no work is taken; inference goes on.
        parts = {SERVICE: not agent.core.leaving}
        parts |= {f"models/{name}": loaded for name, loaded in inference.states()}
        for name, serving in parts.items():
            if told.get(name) is not serving:
                told[name] = serving
                await rpc.set_health(name, serving=serving)
        await asyncio.sleep(limits.HEALTH_INTERVAL_S)


async def _until_first_ends(*parts: Coroutine[Any, Any, None]) -> None:
    """Runs all parts until one ends or fails; raises what it failed with."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def _said(error: HivefoldError, code: int) -> int:
    _log.error("node.stopped", reason=error.reason.value, error=error.message)
    print(f"hivefold node: {error.message}", file=sys.stderr)  # noqa: T201 - the last words
    return code

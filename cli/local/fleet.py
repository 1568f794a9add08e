"""A whole fleet on this machine: nats-server, coordinators, nodes; each a process of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.endpoints import DaemonEndpoint, Endpoints, remove_endpoints, write_endpoints
from cli.local.daemon import Daemon, Program
from cli.local.layout import Layout
from cli.local.leading import follow_leader
from cli.local.ports import FIRST_PORT, Ports
from cli.local.server import NatsServer
from cli.local.supervisor import Part, Supervisor
from hivefold.clock import SystemClock
from hivefold.config import CoordinatorConfig, NodeConfig, write_coordinator_config, write_node_config
from hivefold.limits import COORDINATOR_STOP_S, DAEMON_LOG_CHECK_S, MODEL_MEMORY_SHARE, NODE_STOP_S

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a local fleet is to be. None as a port: the last one or the next free one; 0: any free one."""

    directory: Path
    node_count: int
    slots: int
    threads: int
    models: int
    nats_port: int | None = None
    port: int | None = None
    node_port: int | None = None
    restart: bool = True
    coordinator_count: int = 1


@dataclass(frozen=True, slots=True)
class _Place:
    id: str
    port: int
    daemon: Daemon

    @property
    def address(self) -> str:
        """Where its gRPC server listens."""
        return f"{HOST}:{self.port}"

    def endpoint(self) -> DaemonEndpoint:
        """Where it is now."""
        return DaemonEndpoint(self.id, self.address, self.daemon.pid)


class LocalFleet:
    """A fleet below one directory, which its owner has locked. `announce` gets lines for people."""

    def __init__(self, wishes: Wishes, announce: Callable[[str], None]) -> None:
        self._wishes = wishes
        self._announce = announce
        self._layout = Layout(wishes.directory)
        self._ids = [f"node-{number}" for number in range(1, wishes.node_count + 1)]
        self._server = NatsServer(self._layout.nats, port=wishes.nats_port, nodes=self._ids)
        self._coordinators: list[_Place] = []
        self._leader = ""
        self._nodes: list[_Place] = []
        self.ready = False
        """Whether it has served; a fleet that has not, has nothing to finish."""

    @property
    def parts(self) -> Sequence[Part]:
        """All processes, in the order in which they are started."""
        return [self._server, *self._daemons]

    @property
    def _daemons(self) -> list[Daemon]:
        return [place.daemon for place in (*self._coordinators, *self._nodes)]

    @property
    def directory(self) -> Path:
        """Where it keeps everything."""
        return self._wishes.directory

    async def start(self) -> None:
        """Starts all processes; does not wait until they serve. Raises ConfigError."""
        remove_endpoints(self._wishes.directory)
        self._choose_ports()
        await self._server.start()
        await self._write_configs()
        await asyncio.gather(*(daemon.start() for daemon in self._daemons))

    async def wait_until_ready(self) -> None:
        """Waits until the coordinator serves and all nodes are online; then DIR/endpoints.json says where.

        Raises ConfigError, UnavailableError.
        """
        # gRPC is imported while the daemons import theirs.
        from cli.local.ready import wait_until_ready

        nodes = {node.id: node.daemon for node in self._nodes}
        addresses = [place.address for place in self._coordinators]
        await wait_until_ready(addresses, nodes, self._daemons, self._announce)
        self.write_endpoints()
        self.ready = True

    async def supervise(self) -> None:
        """Keeps the processes running and their logs small, until cancelled. Raises UnavailableError."""
        supervisor = Supervisor(
            self.parts,
            clock=SystemClock(),
            announce=self._announce,
            changed=self.write_endpoints,
            restart=self._wishes.restart,
        )
        async with asyncio.TaskGroup() as group:
            others = [group.create_task(self._turn_logs())]
            if len(self._coordinators) > 1:
                addresses = [place.address for place in self._coordinators]
                others.append(group.create_task(follow_leader(addresses, self._led_by)))
            await supervisor.run()
            for task in others:
                task.cancel()

    async def stop(self) -> None:
        """Ends all processes in order: nodes finish what runs, then standbys, leader and server. Idempotent."""
        await asyncio.gather(*(node.daemon.stop() for node in self._nodes))
        await asyncio.gather(*(place.daemon.stop() for place in self._coordinators if place.address != self._leader))
        await asyncio.gather(*(place.daemon.stop() for place in self._coordinators))
        await self._server.stop()
        remove_endpoints(self._wishes.directory)

    def hurry(self) -> None:
        """Ends the nodes without letting them finish; a `stop` under way goes on with the rest."""
        for node in self._nodes:
            node.daemon.kill()

    def endpoints(self) -> Endpoints:
        """Where everything is."""
        return Endpoints(
            nats=self._server.running.url,
            coordinator=self._leader or self._coordinators[0].address,
            coordinators=tuple(place.endpoint() for place in self._coordinators),
            nodes=tuple(node.endpoint() for node in self._nodes),
            pids={part.name: part.pid for part in self.parts if part.pid},
        )

    def write_endpoints(self) -> None:
        """Writes DIR/endpoints.json."""
        write_endpoints(self._wishes.directory, self.endpoints())

    def _led_by(self, address: str) -> None:
        self._leader = address
        names = [place.id for place in self._coordinators if place.address == address]
        self._announce(f"{names[0] if names else address} leads")
        self.write_endpoints()

    def _choose_ports(self) -> None:
        ports = Ports(self._wishes.directory, host=HOST)
        wishes, several = self._wishes, self._wishes.coordinator_count > 1
        names = [f"coordinator-{number}" for number in range(1, wishes.coordinator_count + 1)]
        self._coordinators = [
            _Place(
                name,
                ports.choose(name, given=wishes.port + index if wishes.port else wishes.port),
                Daemon(self._program(name, "coordinator", COORDINATOR_STOP_S), essential=not several),
            )
            for index, name in enumerate(names if several else ["coordinator"])
        ]
        first = self._wishes.node_port
        self._nodes = [
            _Place(
                node_id,
                ports.choose(node_id, given=first + index if first else first, first=FIRST_PORT + 1),
                Daemon(self._program(node_id, "node", NODE_STOP_S)),
            )
            for index, node_id in enumerate(self._ids)
        ]
        ports.save()

    async def _write_configs(self) -> None:
        server = self._server.running
        for place in self._coordinators:
            write_coordinator_config(
                self._config(place.id),
                CoordinatorConfig(
                    core=server.core,
                    nodes=server.nodes,
                    audit=server.audit,
                    system=server.system,
                    coordinator_id=place.id,
                    host=HOST,
                    port=place.port,
                    data_dir=self._layout.state(place.id).absolute(),
                    key_file=self._layout.key_file.absolute(),
                ),
            )
        for node in self._nodes:
            write_node_config(
                self._config(node.id),
                NodeConfig(
                    broker=await server.node(node.id),
                    node_id=node.id,
                    host=HOST,
                    port=node.port,
                    data_dir=self._layout.state(node.id).absolute(),
                    slots=self._wishes.slots,
                    threads=self._wishes.threads,
                    models=self._wishes.models,
                    model_memory=MODEL_MEMORY_SHARE / self._wishes.node_count,
                ),
            )

    def _program(self, name: str, module: str, stop_s: float) -> Program:
        return Program(
            name=name,
            module=module,
            config=self._config(name),
            log=self._layout.logs / f"{name}.log",
            lock=self._layout.run / f"{name}.lock",
            stop_s=stop_s,
        )

    def _config(self, name: str) -> Path:
        return (self._layout.config / f"{name}.toml").absolute()

    async def _turn_logs(self) -> None:
        while True:
            await asyncio.sleep(DAEMON_LOG_CHECK_S)
            for daemon in self._daemons:
                await asyncio.to_thread(daemon.turn_log)


def cores() -> int:
    """Logical cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""A whole fleet on this machine: nats-server, one coordinator, nodes; each a process of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.endpoints import Endpoints, NodeEndpoint, remove_endpoints, write_endpoints
from cli.local.daemon import Daemon, Program
from cli.local.layout import Layout
from cli.local.ports import FIRST_PORT, Ports
from cli.local.server import NatsServer
from cli.local.supervisor import Part, Supervisor
from hivefold.clock import SystemClock
from hivefold.config import CoordinatorConfig, NodeConfig, write_coordinator_config, write_node_config
from hivefold.limits import COORDINATOR_STOP_S, DAEMON_LOG_CHECK_S, NODE_STOP_S

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a local fleet is to be. None as a port: the last one or the next free one; 0: any free one."""

    directory: Path
    node_count: int
    slots: int
    threads: int
    nats_port: int | None = None
    port: int | None = None
    node_port: int | None = None
    restart: bool = True


@dataclass(frozen=True, slots=True)
class _NodePlace:
    id: str
    port: int
    daemon: Daemon


class LocalFleet:
    """A fleet below one directory, which its owner has locked. `announce` gets lines for people."""

    def __init__(self, wishes: Wishes, announce: Callable[[str], None]) -> None:
        self._wishes = wishes
        self._announce = announce
        self._layout = Layout(wishes.directory)
        self._ids = [f"node-{number}" for number in range(1, wishes.node_count + 1)]
        self._server = NatsServer(self._layout.nats, port=wishes.nats_port, nodes=self._ids)
        self._coordinator = Daemon(self._program("coordinator", "coordinator", COORDINATOR_STOP_S), essential=True)
        self._coordinator_port = 0
        self._nodes: list[_NodePlace] = []
        self.ready = False
        """Whether it has served; a fleet that has not, has nothing to finish."""

    @property
    def parts(self) -> Sequence[Part]:
        """All processes, in the order in which they are started."""
        return [self._server, self._coordinator, *(node.daemon for node in self._nodes)]

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
        await asyncio.gather(self._coordinator.start(), *(node.daemon.start() for node in self._nodes))

    async def wait_until_ready(self) -> None:
        """Waits until the coordinator serves and all nodes are online; then DIR/endpoints.json says where.

        Raises ConfigError, UnavailableError.
        """
        # gRPC is imported while the daemons import theirs.
        from cli.local.ready import wait_until_ready

        nodes = {node.id: node.daemon for node in self._nodes}
        daemons = [self._coordinator, *nodes.values()]
        await wait_until_ready(self.endpoints().coordinator, nodes, daemons, self._announce)
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
            logs = group.create_task(self._turn_logs())
            await supervisor.run()
            logs.cancel()

    async def stop(self) -> None:
        """Ends all processes in order: nodes finish what runs, then the coordinator, then the server. Idempotent."""
        await asyncio.gather(*(node.daemon.stop() for node in self._nodes))
        await self._coordinator.stop()
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
            coordinator=f"{HOST}:{self._coordinator_port}",
            nodes=tuple(NodeEndpoint(node.id, f"{HOST}:{node.port}", node.daemon.pid) for node in self._nodes),
            pids={part.name: part.pid for part in self.parts if part.pid},
        )

    def write_endpoints(self) -> None:
        """Writes DIR/endpoints.json."""
        write_endpoints(self._wishes.directory, self.endpoints())

    def _choose_ports(self) -> None:
        ports = Ports(self._wishes.directory, host=HOST)
        self._coordinator_port = ports.choose("coordinator", given=self._wishes.port)
        first = self._wishes.node_port
        self._nodes = [
            _NodePlace(
                node_id,
                ports.choose(node_id, given=first + index if first else first, first=FIRST_PORT + 1),
                Daemon(self._program(node_id, "node", NODE_STOP_S)),
            )
            for index, node_id in enumerate(self._ids)
        ]
        ports.save()

    async def _write_configs(self) -> None:
        server = self._server.running
        write_coordinator_config(
            self._config("coordinator"),
            CoordinatorConfig(
                core=server.core,
                nodes=server.nodes,
                system=server.system,
                coordinator_id="coordinator",
                host=HOST,
                port=self._coordinator_port,
                data_dir=self._layout.state("coordinator").absolute(),
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
            for daemon in (self._coordinator, *(node.daemon for node in self._nodes)):
                await asyncio.to_thread(daemon.turn_log)


def cores() -> int:
    """Logical cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

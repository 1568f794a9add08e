"""Builds gRPC servers: limits, keepalive, health, reflection, one address of one's own."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc.aio
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from hivefold import limits
from hivefold.errors import ConfigError
from hivefold.rpc.pools import Pools
from hivefold.rpc.serving import Registrar, Serving

_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
_PENDING_RPCS: Final = 8 * limits.GRPC_CONCURRENT_RPCS


@dataclass(frozen=True, slots=True)
class Service:
    """A service to serve: its full name and what adds its servicer to a server."""

    name: str
    add: Callable[[grpc.aio.Server], None]
    pool: descriptor_pool.DescriptorPool | None = None
    """Where reflection finds its descriptors, when that is not protobuf's default pool."""
    lean: tuple[str, ...] = ()
    """Unary methods on a hot path: no log keys, no duration of their own, and a span only where spans are recorded.

    They mind their callers' deadlines themselves, and gRPC cancels them at the deadline.
    """
    own_health: bool = False
    """Whether it serves when the server as a whole may not: its health is told by `set_health`."""


class RpcServer:
    """A gRPC server on one port. MUST be made inside a running event loop.

    Health is there from the start and says NOT_SERVING until `set_serving(True)`: for the server as
    a whole ("") and for each service by name.
    """

    def __init__(self, services: Sequence[Service], *, concurrent_calls: int = limits.GRPC_CONCURRENT_RPCS) -> None:
        self._names = ("", *(service.name for service in services if not service.own_health))
        self._server = grpc.aio.server(options=server_options())
        lean = {f"{service.name}/{method}" for service in services for method in service.lean}
        registrar: Any = Registrar(self._server, Serving(concurrent_calls, lean))
        self._health = health_aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, registrar)
        for service in services:
            service.add(registrar)
        reflected = (*(service.name for service in services), *map(_service_name, (health_pb2, reflection_pb2)))
        pools = [service.pool for service in services if service.pool is not None]
        reflector = _Reflector(reflected, Pools((*pools, descriptor_pool.Default())))
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflector, registrar)
        self._serving: bool | None = None

    def bind(self, host: str = "127.0.0.1", port: int = 0, *, next_free: bool = False) -> str:
        """Takes a port and gives the address, "host:port"; port 0 means any free one.

        With `next_free` a taken port is passed over for one of those after it. Raises ConfigError, also for
        a host beyond loopback: callers are not authenticated yet.
        """
        if not _is_loopback(host):
            raise ConfigError(
                f"cannot listen on {host}: calls are not authenticated, so only loopback is served; "
                "listen on 127.0.0.1 and reach it through an SSH tunnel or a proxy that authenticates",
                metadata={"host": host},
            )
        tries = limits.PORT_TRIES if next_free and port else 1
        for candidate in range(port, min(port + tries, 65_536)):
            bound = self._try_bind(f"{host}:{candidate}")
            if bound:
                return f"{host}:{bound}"
        span = f"{port} to {port + tries - 1}" if tries > 1 else str(port)
        raise ConfigError(
            f"cannot listen on {host}, port {span}: it is taken or not allowed; choose another port, or 0 for any",
            metadata={"host": host, "port": str(port)},
        )

    def _try_bind(self, address: str) -> int:
        try:
            return self._server.add_insecure_port(address)
        except RuntimeError:
            return 0

    async def start(self) -> None:
        """Begins to serve; health says NOT_SERVING until told otherwise."""
        await self.set_serving(serving=False)
        await self._server.start()

    async def set_serving(self, *, serving: bool) -> None:
        """What health says from now on."""
        if serving is self._serving:
            return
        self._serving = serving
        for name in self._names:
            await self._health.set(name, _SERVING if serving else _NOT_SERVING)

    async def set_health(self, name: str, *, serving: bool) -> None:
        """What health says of something beside the services, e.g. "models/digits"."""
        await self._health.set(name, _SERVING if serving else _NOT_SERVING)

    async def stop(self, grace_s: float = limits.GRPC_STOP_S) -> None:
        """Takes no new calls, lets running ones finish for `grace_s` seconds, then cuts them."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)


class _Reflector:
    """Reflection, imported when somebody asks: it holds 3 MB that most servers never need."""

    def __init__(self, names: Sequence[str], pools: Pools) -> None:
        self._names = names
        self._pools: Any = pools

    async def ServerReflectionInfo(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        from grpc_reflection.v1alpha.reflection import aio

        servicer = aio.ReflectionServicer(self._names, self._pools)
        async for answer in servicer.ServerReflectionInfo(requests, context):
            yield answer


def _service_name(module: Any) -> str:
    """The full name of the one service that a generated module declares."""
    (service,) = module.DESCRIPTOR.services_by_name.values()
    return str(service.full_name)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def server_options() -> list[tuple[str, int]]:
    """Options of every server."""
    return [
        # Otherwise a second process of the same user could take half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limits.GRPC_MESSAGE_BYTES),
        ("grpc.max_send_message_length", limits.GRPC_MESSAGE_BYTES),
        ("grpc.max_metadata_size", limits.GRPC_METADATA_BYTES),
        ("grpc.max_concurrent_streams", limits.GRPC_CONCURRENT_STREAMS),
        # From 1000 calls on that wait to be looked at gRPC would drop some at random, which callers see as CANCELLED.
        ("grpc.server.max_pending_requests", _PENDING_RPCS),
        ("grpc.server.max_pending_requests_hard_limit", _PENDING_RPCS),
        ("grpc.keepalive_time_ms", limits.GRPC_KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", limits.GRPC_KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", limits.GRPC_PING_LEAST_MS),
    ]

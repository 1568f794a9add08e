"""Channels to hivefold's servers: limits, keepalive, retries, tracing where it is on."""

from __future__ import annotations

from importlib.resources import files
from typing import Final, TypeAlias

import grpc
import grpc.aio

from hivefold import limits, observe
from hivefold.rpc.calling import aio_interceptors, sync_interceptors

Options: TypeAlias = list[tuple[str, str | int]]
LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")


def service_config() -> str:
    """Which calls are repeated and how: JSON that clients in other languages give to their channels too.

    Calls of one message, and those alone, are tried up to five times while the server is UNAVAILABLE, with
    growing waits that gRPC spreads by a fifth; the call's deadline spans all tries.
    """
    return files("hivefold.rpc").joinpath("service_config.json").read_text(encoding="utf-8")


def channel_options() -> Options:
    """Options of every channel."""
    return [
        ("grpc.max_receive_message_length", limits.GRPC_MESSAGE_BYTES),
        ("grpc.max_send_message_length", limits.GRPC_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", limits.GRPC_KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", limits.GRPC_KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.enable_retries", 1),
        ("grpc.service_config", service_config()),
        ("grpc.initial_reconnect_backoff_ms", limits.RECONNECT_WAIT_MS),
        ("grpc.min_reconnect_backoff_ms", limits.RECONNECT_WAIT_MS),
        ("grpc.max_reconnect_backoff_ms", limits.RECONNECT_WAIT_MAX_MS),
    ]


def open_channel(target: str, *, repeating: bool = True) -> grpc.aio.Channel:
    """A channel for asyncio. Connects when it is first used.

    Without `repeating` a failed call is told at once: for callers that repeat it themselves, elsewhere if need be.
    """
    options = [
        (name, 0 if name == "grpc.enable_retries" and not repeating else value) for name, value in _options(target)
    ]
    return grpc.aio.insecure_channel(
        target, options=options, interceptors=aio_interceptors() if observe.tracing() else None
    )


def open_sync_channel(target: str) -> grpc.Channel:
    """A channel for programs without asyncio. Connects when it is first used."""
    channel = grpc.insecure_channel(target, options=_options(target))
    return grpc.intercept_channel(channel, *sync_interceptors()) if observe.tracing() else channel


def _options(target: str) -> Options:
    options = channel_options()
    if target.rpartition(":")[0] in LOOPBACK:
        # A proxy of the environment is never on the way to this machine.
        options.append(("grpc.enable_http_proxy", 0))
    return options

"""Connects to a NATS server and stays connected."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import nats.errors
import structlog
from nats.aio.client import Client, Server

from hivefold.broker import BrokerSettings
from hivefold.bus.link import Link
from hivefold.clock import stopwatch_ns
from hivefold.entropy import jitter
from hivefold.errors import BrokerUnavailableError, ConfigError
from hivefold.limits import (
    BROKER_CONNECT_S,
    BROKER_FLUSH_S,
    BROKER_PENDING_BYTES,
    BROKER_PING_S,
    RECONNECT_WAIT_MAX_MS,
    RECONNECT_WAIT_MS,
)

_log = structlog.get_logger(__name__)
_START_RETRY_S: Final = 0.25
_AUTHORIZATION: Final = ("authorization", "authentication", "user credentials")


async def connect(
    settings: BrokerSettings,
    *,
    on_reconnect: Callable[[], None] | None = None,
    on_disconnect: Callable[[], None] | None = None,
    wait_s: float = 0.0,
) -> Link:
    """Connects; from then on reconnects for ever by itself. The callbacks MUST return at once.

    An unreachable server is tried again for `wait_s` seconds. Raises BrokerUnavailableError that
    names the addresses, or ConfigError that names the credential or the file that is wrong.
    """
    options = _credentials(settings)
    until = stopwatch_ns() + wait_s * 1e9
    while True:
        try:
            return await _connect_once(settings, options, on_reconnect, on_disconnect)
        except BrokerUnavailableError:
            if stopwatch_ns() >= until:
                raise
            await asyncio.sleep(_START_RETRY_S)


async def _connect_once(
    settings: BrokerSettings,
    options: dict[str, Any],
    on_reconnect: Callable[[], None] | None,
    on_disconnect: Callable[[], None] | None,
) -> Link:
    link = Link()
    watch = _Watch(link, settings, on_reconnect, on_disconnect)
    try:
        await link.connect(
            servers=list(settings.servers),
            name=settings.client_name,
            inbox_prefix=settings.inbox_prefix,
            error_cb=watch.error,
            disconnected_cb=watch.disconnected,
            reconnected_cb=watch.reconnected,
            closed_cb=watch.closed,
            reconnect_to_server_handler=watch.next_server,
            max_reconnect_attempts=-1,
            connect_timeout=BROKER_CONNECT_S,
            ping_interval=BROKER_PING_S,
            flush_timeout=BROKER_FLUSH_S,
            pending_size=BROKER_PENDING_BYTES,
            **options,
        )
    except (_StartFailedError, nats.errors.Error, OSError, ValueError) as error:
        await link.abandon()
        raise _explained(error, settings) from None
    watch.starting = False
    link.announce_up(again=False)
    _log.info("broker.connected", server=_address(link), client=settings.client_name)
    return link


class _StartFailedError(Exception):
    """Raised out of nats-py's own retry loop, which would never end."""


class _Watch:
    """The callbacks of one connection."""

    def __init__(
        self,
        link: Link,
        settings: BrokerSettings,
        on_reconnect: Callable[[], None] | None,
        on_disconnect: Callable[[], None] | None,
    ) -> None:
        self.starting = True
        self._link = link
        self._servers = len(settings.servers)
        self._failures = 0
        self._said = ""
        self._on_reconnect = on_reconnect
        self._on_disconnect = on_disconnect
        self._log = _log.bind(client=settings.client_name)

    async def error(self, error: Exception) -> None:
        if self.starting:
            self._failures += 1
            if self._failures >= self._servers or _is_authorization(error):
                raise _StartFailedError from error
        elif isinstance(error, nats.errors.SlowConsumerError):
            self._log.error("broker.messages_dropped", subject=error.subject)
        elif "permissions violation" in str(error):
            self._log.error("broker.permission_denied", error=str(error))
        elif self._said != (text := _told(error)):
            # Said once: a broker that is away for a day fails each attempt alike.
            self._said = text
            self._log.warning("broker.error", error=text)

    async def disconnected(self) -> None:
        if self.starting or self._link.is_closed:
            return
        self._log.warning("broker.disconnected")
        if self._on_disconnect is not None:
            self._on_disconnect()

    async def reconnected(self) -> None:
        self._said = ""
        self._log.info("broker.reconnected", server=_address(self._link))
        self._link.announce_up(again=True)
        if self._on_reconnect is not None:
            self._on_reconnect()

    async def closed(self) -> None:
        self._log.info("broker.closed")

    def next_server(self, servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
        """The server that failed least often, and a wait that grows with its failures, with jitter.

        Ends the task that asks once the connection is closed: it may have missed its cancellation, and would go on
        for ever, so that no process with such a connection could end.
        """
        if self._link.is_closed:
            raise asyncio.CancelledError
        server = min(servers, key=lambda candidate: candidate.reconnects)
        bound_ms = min(RECONNECT_WAIT_MAX_MS, RECONNECT_WAIT_MS * 2 ** min(server.reconnects, 16))
        return server, bound_ms * (0.5 + jitter() / 2) / 1000


def _credentials(settings: BrokerSettings) -> dict[str, Any]:
    """The one kind of credential that is configured, as nats-py takes it, and TLS."""
    options: dict[str, Any] = {}
    if settings.credentials_file:
        # nats-py reads a file without these markers for ever.
        _require_text(settings.credentials_file, "credentials file", ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED"))
        options["user_credentials"] = settings.credentials_file
    elif settings.nkey_file:
        _require_text(settings.nkey_file, "nkey file", ("SU",))
        options["nkeys_seed"] = settings.nkey_file
    elif settings.user:
        options |= {"user": settings.user, "password": settings.password.reveal()}
    elif settings.token:
        options["token"] = settings.token.reveal()
    if settings.tls_ca_file or settings.tls_cert_file:
        options["tls"] = _tls(settings)
    return options


def _require_text(path: str, what: str, markers: tuple[str, ...]) -> None:
    try:
        text = Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the NATS {what} {path}: {error}; check the path and its owner") from None
    if not all(marker in text for marker in markers):
        raise ConfigError(f"{path} is not a NATS {what}: {' or '.join(markers)} is missing; create it with nsc or nk")


def _tls(settings: BrokerSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file or None)
        if settings.tls_cert_file:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file or None)
    except (OSError, ValueError) as error:
        files = ", ".join(filter(None, (settings.tls_ca_file, settings.tls_cert_file, settings.tls_key_file)))
        raise ConfigError(f"cannot use the TLS files {files}: {error}; check that they are PEM and readable") from None
    return context


def _explained(error: Exception, settings: BrokerSettings) -> ConfigError | BrokerUnavailableError:
    cause = error.__cause__ if isinstance(error, _StartFailedError) and error.__cause__ else error
    servers = ", ".join(_without_secrets(server) for server in settings.servers)
    if _is_authorization(cause):
        return ConfigError(
            f"NATS at {servers} refused {_credential_name(settings)}; check it against the server's accounts",
            metadata={"servers": servers},
        )
    if isinstance(cause, ssl.SSLError):
        return ConfigError(
            f"no TLS connection to NATS at {servers}: {cause}; check tls_ca_file and the server's certificate",
            metadata={"servers": servers},
        )
    return BrokerUnavailableError(
        f"cannot reach NATS at {servers}: {_told(cause)}; start nats-server there or name another server",
        metadata={"servers": servers},
    )


def _credential_name(settings: BrokerSettings) -> str:
    if settings.credentials_file:
        return f"the credentials file {settings.credentials_file}"
    if settings.nkey_file:
        return f"the nkey in {settings.nkey_file}"
    if settings.user:
        return f"user {settings.user!r} with its password"
    if settings.token:
        return "the token"
    return "a connection without credentials"


def _is_authorization(error: BaseException) -> bool:
    text = str(error).lower()
    return any(word in text for word in _AUTHORIZATION)


def _told(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _without_secrets(server: str) -> str:
    """The address of a server URL; user and password stay out of messages."""
    parts = urlsplit(server if "://" in server else f"nats://{server}")
    return f"{parts.hostname}:{parts.port or 4222}"


def _address(client: Client) -> str:
    url = client.connected_url
    return f"{url.hostname}:{url.port}" if url else ""

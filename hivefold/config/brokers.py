"""How to reach NATS, out of the settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from hivefold.broker import BrokerSettings, Secret
from hivefold.config import values
from hivefold.config.sources import SECRETS, Found, Settings
from hivefold.config.values import Parse
from hivefold.errors import ConfigError
from hivefold.limits import SECRET_BYTES

BASE: Final = "nats"
"""The table that holds for every connection."""

_FILES: Final = ("credentials_file", "nkey_file", "tls_ca_file", "tls_cert_file", "tls_key_file")
_KEYS: Final[dict[str, Parse]] = {
    "servers": values.texts,
    "user": values.text,
    "password": values.text,
    "password_file": values.path,
    "token": values.text,
    "token_file": values.path,
    "inbox_prefix": values.text,
    **dict.fromkeys(_FILES, values.path),
}


def broker_schema(*tables: str) -> dict[str, Parse]:
    """The keys of connections."""
    return {f"{table}.{key}": parse for table in tables for key, parse in _KEYS.items()}


def mentions(settings: Settings, table: str) -> bool:
    """Whether a source says anything about this connection."""
    return any(settings.find(f"{table}.{key}") is not None for key in _KEYS)


def broker_settings(settings: Settings, table: str, client_name: str) -> BrokerSettings:
    """One connection: what its own table says in a source counts before what [nats] says there."""

    def get(key: str, default: str = "") -> str:
        return str(settings.get(f"{table}.{key}", f"{BASE}.{key}", default=default))

    plain = BrokerSettings()
    servers, user, password = _servers(settings.get(f"{table}.servers", f"{BASE}.servers", default=plain.servers))
    secrets = {key: _secret(settings, table, key) for key in SECRETS}
    return BrokerSettings(
        servers=servers,
        user=user or get("user"),
        password=password or secrets["password"],
        token=secrets["token"],
        client_name=client_name,
        inbox_prefix=get("inbox_prefix", plain.inbox_prefix),
        **{key: _file(settings, table, key) for key in _FILES},
    )


def broker_items(broker: BrokerSettings) -> Iterator[tuple[str, object]]:
    """What to write into a file so that the same connection is read back."""
    plain = BrokerSettings()
    yield "servers", list(broker.servers)
    for key in ("user", "inbox_prefix", *_FILES):
        if getattr(broker, key) != getattr(plain, key):
            yield key, getattr(broker, key)
    for key in SECRETS:
        secret: Secret = getattr(broker, key)
        if secret:
            yield key, secret.reveal()


def _servers(urls: tuple[str, ...]) -> tuple[tuple[str, ...], str, Secret]:
    """The addresses, and the user and password where one of them holds them: an address is shown, they are not."""
    user, password, plain = "", "", []
    for url in (part.strip() for listed in urls for part in listed.split(",") if part.strip()):
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        if not parts.hostname or parts.scheme not in {"nats", "tls"} or not _port_fits(parts):
            raise ConfigError("a NATS server must be nats://host:port or tls://host:port; check servers or NATS_URL")
        if parts.username is not None:
            user, password = unquote(parts.username), unquote(parts.password or "")
        plain.append(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))
    return tuple(plain), user, Secret(password)


def _port_fits(parts: SplitResult) -> bool:
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _secret(settings: Settings, table: str, key: str) -> Secret:
    """The secret itself, or what its file holds."""
    for scope in (table, BASE):
        found = settings.find(f"{scope}.{key}", f"{scope}.{key}_file")
        if found is not None:
            return Secret(found.value) if isinstance(found.value, str) else _secret_file(found)
    return Secret()


def _secret_file(found: Found) -> Secret:
    path = found.source.directory / str(found.value)
    try:
        content = path.read_bytes()[: SECRET_BYTES + 1]
    except OSError as error:
        raise ConfigError(f"cannot read the secret in {path}: {error.strerror}; check the path and its owner") from None
    if not content.strip() or len(content) > SECRET_BYTES:
        raise ConfigError(f"{path} must hold one secret of at most {SECRET_BYTES} bytes")
    return Secret(content.decode("utf-8", "replace").strip())


def _file(settings: Settings, table: str, key: str) -> str:
    found = settings.find(f"{table}.{key}", f"{BASE}.{key}")
    return "" if found is None else str(found.source.directory / str(found.value))

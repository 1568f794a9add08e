"""What the NATS command line knows: NATS_* variables and contexts (ADR-21 of the NATS project)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hivefold.config.sources import Source
from hivefold.errors import ConfigError

_VARIABLES: Final = {
    "NATS_URL": "servers",
    "NATS_USER": "user",
    "NATS_PASSWORD": "password",
    "NATS_TOKEN": "token",
    "NATS_CREDS": "credentials_file",
    "NATS_NKEY": "nkey_file",
    "NATS_CA": "tls_ca_file",
    "NATS_CERT": "tls_cert_file",
    "NATS_KEY": "tls_key_file",
    "NATS_INBOX_PREFIX": "inbox_prefix",
}
_FIELDS: Final = {
    "url": "servers",
    "user": "user",
    "password": "password",
    "token": "token",
    "creds": "credentials_file",
    "nkey": "nkey_file",
    "ca": "tls_ca_file",
    "cert": "tls_cert_file",
    "key": "tls_key_file",
    "inbox_prefix": "inbox_prefix",
}
_UNSUPPORTED: Final = ("nsc", "user_jwt", "socks_proxy", "jetstream_domain", "jetstream_api_prefix")


def nats_sources(environ: Mapping[str, str]) -> list[Source]:
    """NATS_* variables, then the context that NATS_CONTEXT names or the command line has selected."""
    given = {f"nats.{key}": environ[name] for name, key in _VARIABLES.items() if environ.get(name)}
    names = {f"nats.{key}": name for name, key in _VARIABLES.items()}
    sources = [Source(given, lambda key: names[key])]
    path = _context_path(environ)
    if path is not None:
        sources.append(_context(path))
    return sources


def _context_path(environ: Mapping[str, str]) -> Path | None:
    home = Path(environ.get("HOME") or Path.home())
    directory = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "nats"
    name = environ.get("NATS_CONTEXT", "")
    if Path(name).is_absolute():
        return Path(name)
    selected = directory / "context.txt"
    if not name and selected.is_file():
        name = selected.read_text(encoding="utf-8").strip()
    return directory / "context" / f"{name}.json" if name else None


def _context(path: Path) -> Source:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read the NATS context {path}: {error}; run `nats context ls`, or set NATS_CONTEXT to another"
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(f"the NATS context {path} is not a JSON object; write it anew with `nats context edit`")
    for field in _UNSUPPORTED:
        if content.get(field):
            raise ConfigError(f"the NATS context {path} uses {field}, which hivefold does not; use another context")
    values = {f"nats.{key}": content[field] for field, key in _FIELDS.items() if content.get(field)}
    fields = {f"nats.{key}": field for field, key in _FIELDS.items()}
    return Source(values, lambda key: f"{path}: {fields[key]}")

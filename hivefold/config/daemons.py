"""The configuration of the two daemons."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import platformdirs

from hivefold import limits
from hivefold.broker import BrokerSettings
from hivefold.config import values
from hivefold.config.brokers import BASE, broker_items, broker_schema, broker_settings, mentions
from hivefold.config.contexts import nats_sources
from hivefold.config.sources import Settings, environment_source, file_source, flag_source
from hivefold.config.values import Parse
from hivefold.errors import ConfigError
from hivefold.server.private import write_private

_LARGEST: Final = 1 << 62
KEY_FILE: Final = "signing.key"
_ISOLATED: Final = "nats_environment"


class Durability(StrEnum):
    """When the server answers: after the bytes are on the disk, or up to its interval before."""

    FSYNC_ALWAYS = "fsync-always"
    FSYNC_INTERVAL = "fsync-interval"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CoordinatorConfig:
    """A coordinator. `port` None is the next free port from the usual one, 0 any; sizes in bytes."""

    core: BrokerSettings = field(default_factory=BrokerSettings)
    nodes: BrokerSettings = field(default_factory=BrokerSettings)
    audit: BrokerSettings | None = None
    """The account AUDIT, in which the log is mirrored; None: it is not."""
    system: BrokerSettings | None = None
    """The server's system account, to look up its durability."""
    monitor_url: str = ""
    """The server's monitoring endpoint, for the same purpose: http://127.0.0.1:8222."""
    coordinator_id: str = ""
    host: str = "127.0.0.1"
    port: int | None = None
    data_dir: Path = Path()
    key_file: Path | None = None
    """The key that signs the log, one for all coordinators of a fleet; None is KEY_FILE in `data_dir`."""
    durability: Durability = Durability.FSYNC_ALWAYS
    """The weakest that is accepted."""
    log_replicas: int = 1
    log_max_bytes: int = limits.LOG_BYTES
    segment_max_records: int = limits.SEGMENT_RECORDS
    segment_max_bytes: int = limits.SEGMENT_BYTES
    archive_dir: str = ""
    """Where closed segments of the log are archived as files; empty: they are not."""
    keep_segments: int = 0
    """How many archived segments stay on the broker; 0: all."""
    suspect_after_ms: int = limits.SUSPECT_AFTER_MS
    lost_after_ms: int = limits.LOST_AFTER_MS
    lease_ttl_s: int = limits.LEASE_TTL_S
    snapshot_records: int = limits.SNAPSHOT_RECORDS
    """A snapshot of the state is written after so many records."""
    """How long the leader may be silent before another leads, in whole seconds."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """A node. `slots` and `threads` 0 follow the processors; an empty `node_id` is made once and kept in `data_dir`."""

    broker: BrokerSettings = field(default_factory=BrokerSettings)
    node_id: str = ""
    host: str = "127.0.0.1"
    port: int | None = None
    data_dir: Path = Path()
    slots: int = 0
    threads: int = 0
    models: int = limits.MODELS_LOADED
    """Most models loaded at once."""
    model_memory: float = limits.MODEL_MEMORY_SHARE
    """The part of the machine's memory that loaded models may take."""
    model_idle_s: float = limits.MODEL_IDLE_S
    """How long a loaded model may be unused before it is unloaded; 0: it stays."""
    labels: Mapping[str, str] = field(default_factory=dict)
    drain_s: float = limits.DRAIN_S


_COMMON: Final[dict[str, Parse]] = {
    "host": values.text,
    "port": values.integer(0, 65535),
    "data_dir": values.path,
    _ISOLATED: values.switch,
}
_COORDINATOR: Final[dict[str, Parse]] = {
    **_COMMON,
    "id": values.name,
    "monitor_url": values.text,
    "key_file": values.path,
    "durability": values.choice(Durability),
    "log_replicas": values.integer(1, 5),
    "log_max_bytes": values.integer(1, _LARGEST),
    "segment_max_records": values.integer(2, _LARGEST),
    "segment_max_bytes": values.integer(1, _LARGEST),
    "archive_dir": values.text,
    "keep_segments": values.integer(0, 4096),
    "suspect_after_ms": values.integer(100, 3_600_000),
    "lost_after_ms": values.integer(100, 3_600_000),
    "lease_ttl_s": values.integer(1, 600),
    "snapshot_records": values.integer(1, 10_000_000),
}
_COORDINATOR_TABLES: Final = ("core", "nodes", "audit", "system")
_NODE: Final[dict[str, Parse]] = {
    **_COMMON,
    "id": values.name,
    "slots": values.integer(0, 1024),
    "threads": values.integer(0, 1024),
    "models": values.integer(1, limits.MODELS_LOADED_MAX),
    "model_memory": values.number(0.01, 1),
    "model_idle_s": values.number(0, 30 * 24 * 3600),
    "labels": values.labels,
    "drain_s": values.number(0, 3600),
}
_NODE_PLAIN: Final = ("host", "port", "slots", "threads", "models", "model_memory", "model_idle_s", "drain_s")


def load_coordinator_config(
    flags: Mapping[str, object], environ: Mapping[str, str], config_file: Path | None = None
) -> CoordinatorConfig:
    """The coordinator's configuration. Flags that are None count as not given.

    Raises ConfigError that names the place of a wrong or unknown value and what to write instead.
    """
    schema = _COORDINATOR | broker_schema(BASE, *_COORDINATOR_TABLES)
    settings = _settings(flags, environ, config_file, "HIVEFOLD_COORDINATOR_", schema)
    plain = CoordinatorConfig()
    suspect, lost = (settings.get(key, default=getattr(plain, key)) for key in ("suspect_after_ms", "lost_after_ms"))
    if lost <= suspect:
        raise ConfigError(f"lost_after_ms ({lost}) must be more than suspect_after_ms ({suspect})")
    return CoordinatorConfig(
        core=broker_settings(settings, "core", "hivefold-coordinator"),
        nodes=broker_settings(settings, "nodes", "hivefold-coordinator"),
        audit=broker_settings(settings, "audit", "hivefold-coordinator") if mentions(settings, "audit") else None,
        system=broker_settings(settings, "system", "hivefold-coordinator") if mentions(settings, "system") else None,
        coordinator_id=settings.get("id", default="") or _host_name(),
        data_dir=_data_dir(settings, "coordinator"),
        key_file=_path(settings, "key_file"),
        suspect_after_ms=suspect,
        lost_after_ms=lost,
        **_plain_values(
            settings,
            plain,
            (
                "monitor_url",
                "host",
                "port",
                "durability",
                "log_replicas",
                "log_max_bytes",
                "segment_max_records",
                "segment_max_bytes",
                "archive_dir",
                "keep_segments",
                "lease_ttl_s",
                "snapshot_records",
            ),
        ),
    )


def load_node_config(
    flags: Mapping[str, object], environ: Mapping[str, str], config_file: Path | None = None
) -> NodeConfig:
    """The node's configuration; as load_coordinator_config."""
    settings = _settings(flags, environ, config_file, "HIVEFOLD_NODE_", _NODE | broker_schema(BASE))
    return NodeConfig(
        broker=broker_settings(settings, BASE, "hivefold-node"),
        node_id=settings.get("id", default=""),
        data_dir=_data_dir(settings, "node"),
        **_plain_values(settings, NodeConfig(), (*_NODE_PLAIN, "labels")),
    )


def write_coordinator_config(path: Path, config: CoordinatorConfig) -> None:
    """Writes a file (0600) that alone makes up `config`: NATS_* and contexts do not count beside it."""
    tables = {"core": config.core, "nodes": config.nodes}
    if config.audit is not None:
        tables["audit"] = config.audit
    if config.system is not None:
        tables["system"] = config.system
    _write(path, config, {"coordinator_id": "id"}, tables)


def write_node_config(path: Path, config: NodeConfig) -> None:
    """As write_coordinator_config."""
    _write(path, config, {"node_id": "id"}, {BASE: config.broker})


def _settings(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    config_file: Path | None,
    prefix: str,
    schema: Mapping[str, Parse],
) -> Settings:
    files = [file_source(config_file, schema)] if config_file else []
    isolated = Settings(files, schema).get(_ISOLATED, default=True) is False
    nats = [] if isolated else nats_sources(environ)
    return Settings([flag_source(flags, schema), environment_source(environ, prefix, schema), *nats, *files], schema)


def _plain_values(settings: Settings, plain: object, keys: Sequence[str]) -> dict[str, Any]:
    return {key: settings.get(key, default=getattr(plain, key)) for key in keys}


def _data_dir(settings: Settings, daemon: str) -> Path:
    return _path(settings, "data_dir") or platformdirs.user_state_path("hivefold") / daemon


def _path(settings: Settings, key: str) -> Path | None:
    found = settings.find(key)
    return None if found is None else (found.source.directory / str(found.value)).absolute()


def _host_name() -> str:
    """This machine's name, as far as it can be an id."""
    kept = "".join(c if c.isalnum() and c.isascii() else "-" for c in socket.gethostname().lower()).strip("-")
    return kept[:64].strip("-") or "coordinator"


def _write(
    path: Path, config: CoordinatorConfig | NodeConfig, renamed: Mapping[str, str], tables: Mapping[str, BrokerSettings]
) -> None:
    plain = type(config)()
    lines = ["# Written by hivefold; changes are lost.", f"{_ISOLATED} = false"]
    nested: list[str] = []
    for item in fields(config):
        value = getattr(config, item.name)
        if isinstance(value, Mapping):
            nested += ["", f"[{item.name}]", *_lines(value.items())] if value else []
        elif not isinstance(value, BrokerSettings) and value is not None and value != getattr(plain, item.name):
            lines += _lines([(renamed.get(item.name, item.name), value)])
    for name, broker in tables.items():
        nested += ["", f"[{name}]", *_lines(broker_items(broker))]
    write_private(path, "\n".join([*lines, *nested, ""]))


def _lines(items: Any) -> Iterator[str]:
    """`key = value` in TOML, whose texts, numbers and lists are JSON's."""
    for key, value in items:
        shown = str(value) if isinstance(value, Path) else value
        yield f"{key} = {json.dumps(shown, ensure_ascii=False)}"

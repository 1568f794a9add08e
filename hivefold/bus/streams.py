"""The streams of the account NODES: what they are, made or brought up to date at start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import structlog

from hivefold.bus import api
from hivefold.bus.link import Link, NoRespondersError
from hivefold.clock import SystemClock
from hivefold.errors import ConfigError
from hivefold.limits import BROKER_MESSAGE_BYTES

WORK: Final = "HF_WORK"
RESULTS: Final = "HF_RESULTS"
EVENTS: Final = "HF_EVENTS"
BLOBS: Final = "HF_BLOBS"
CHECKPOINTS: Final = "HF_CHECKPOINTS"
INFERENCE: Final = "HF_INFERENCE"
COORDINATOR: Final = "coordinator"
"""The durable consumer of RESULTS."""

_log = structlog.get_logger(__name__)
_NANOSECONDS: Final = 1_000_000_000
_FIXED: Final = ("storage", "retention", "subjects")
"""What an update cannot or must not change: a stream that differs here is not ours."""


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """Bounds of the streams. 0 bytes: only the server's own limit holds."""

    replicas: int = 1
    work_max_bytes: int = 64 * 1024 * 1024
    results_max_age_s: int = 7 * 24 * 3600
    results_max_bytes: int = 4 * 1024 * 1024 * 1024
    events_max_age_s: int = 24 * 3600
    events_max_bytes: int = 512 * 1024 * 1024
    blobs_max_bytes: int = 0
    checkpoints_max_bytes: int = 256 * 1024 * 1024
    inference_max_age_s: int = 30 * 24 * 3600
    inference_max_bytes: int = 2 * 1024 * 1024 * 1024


async def prepare_streams(link: Link, settings: StreamSettings | None = None) -> None:
    """Makes the streams that are missing and updates the bounds of the others. Idempotent.

    Raises ConfigError (no JetStream, a foreign stream under one of the names, too little storage),
    BrokerUnavailableError.
    """
    if link.max_payload < BROKER_MESSAGE_BYTES:
        raise ConfigError(
            f"this NATS server takes messages of at most {link.max_payload} bytes; "
            f"set its max_payload to {BROKER_MESSAGE_BYTES} or more"
        )
    for config in stream_configs(settings or StreamSettings()):
        await prepare_stream(link, config)


async def prepare_stream(link: Link, config: dict[str, Any]) -> None:
    """Makes or updates one stream. Raises as prepare_streams does."""
    name = config["name"]
    try:
        made = await api.call(link, f"STREAM.CREATE.{name}", config | _beginning(config))
    except NoRespondersError as error:
        raise api.without_jetstream(error) from None
    except api.ApiError as error:
        if error.code != api.STREAM_EXISTS:
            raise _explained(error, name) from None
        made = await _updated(link, config)
    if config.get("allow_atomic") and not made["config"].get("allow_atomic"):
        # An older server ignores what it does not know, and would store half a batch.
        raise ConfigError("this NATS server has no atomic batches; use nats-server 2.12 or newer")


def _beginning(config: dict[str, Any]) -> dict[str, Any]:
    """Where a new stream begins to count: one in memory at the time, for it is made again after each loss.

    Were it to begin at 1 again, a late answer to work that was lost would settle new work of the same number. So
    does the one of inference, for the state knows by its position what is recorded.
    """
    anew = config["storage"] == "memory" or config["name"] == INFERENCE
    return {"first_seq": SystemClock().now_us()} if anew else {}


def stream_configs(settings: StreamSettings) -> tuple[dict[str, Any], ...]:
    """The configurations as JetStream takes them."""
    common = {
        "num_replicas": settings.replicas,
        "retention": "limits",
        "discard": "new",
        "allow_direct": True,
        "storage": "file",
    }
    return (
        work_config(settings),
        common
        | {
            "name": RESULTS,
            "subjects": ["results.>"],
            "max_age": settings.results_max_age_s * _NANOSECONDS,
            "max_bytes": settings.results_max_bytes or -1,
            "allow_atomic": True,
        },
        common
        | {
            "name": EVENTS,
            "subjects": ["events.>"],
            # The newest events matter to those who follow: the oldest make room.
            "discard": "old",
            "max_age": settings.events_max_age_s * _NANOSECONDS,
            "max_bytes": settings.events_max_bytes or -1,
            # Derived from the log and repeated after a loss: a disk that the log waits for is not
            # kept busy with them. Only a single server can do so.
            **({"persist_mode": "async"} if settings.replicas == 1 else {}),
        },
        common
        | {
            "name": CHECKPOINTS,
            "subjects": ["checkpoint.>"],
            "discard": "old",
            "max_bytes": settings.checkpoints_max_bytes or -1,
        },
        common
        | {
            "name": INFERENCE,
            "subjects": ["inference.>"],
            # The log keeps the digests of those that made room.
            "discard": "old",
            "max_age": settings.inference_max_age_s * _NANOSECONDS,
            "max_bytes": settings.inference_max_bytes or -1,
        },
        common | {"name": BLOBS, "subjects": ["blob.>"], "max_bytes": settings.blobs_max_bytes or -1},
    )


def work_config(settings: StreamSettings) -> dict[str, Any]:
    """The work stream: in memory, for all of it can be derived from the log; a message goes when it is acknowledged."""
    return {
        "name": WORK,
        "subjects": ["work.*"],
        "storage": "memory",
        "retention": "workqueue",
        "discard": "new",
        "num_replicas": settings.replicas,
        "max_bytes": settings.work_max_bytes or -1,
    }


async def _updated(link: Link, config: dict[str, Any]) -> dict[str, Any]:
    name = config["name"]
    found = (await api.call(link, f"STREAM.INFO.{name}"))["config"]
    for key in _FIXED:
        if found.get(key) != config.get(key):
            raise ConfigError(
                f"stream {name} exists with {key} {found.get(key)!r}, not {config.get(key)!r}: "
                "it is not hivefold's; rename it or give hivefold an account of its own"
            )
    try:
        made = await api.call(link, f"STREAM.UPDATE.{name}", found | config)
    except api.ApiError as error:
        raise _explained(error, name) from None
    _log.info("stream.updated", stream=name)
    return made


def _explained(error: api.ApiError, name: str) -> ConfigError:
    if error.code in api.STORAGE_SHORT:
        return ConfigError(
            f"no room for stream {name}: {error.description}; "
            "lower its max_bytes or raise the server's JetStream max_file or max_mem"
        )
    return ConfigError(f"cannot make stream {name}: {error.description} ({error.code}); check the account's limits")

"""The stream that holds the log: how it must be, how it is made, what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hivefold.bus import api
from hivefold.bus.link import Link, NoRespondersError
from hivefold.errors import ConfigError, LogCorruptError
from hivefold.limits import APPEND_RESOLVE_S, APPEND_TIMEOUT_S, LOG_BYTES

STREAM: Final = "HF_LOG"
_JETSTREAM_OFF: Final = (10039, 10076)


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How the log is kept: copies on the broker, most bytes, and how long an append may take."""

    replicas: int = 1
    max_bytes: int = LOG_BYTES
    append_timeout_s: float = APPEND_TIMEOUT_S
    resolve_timeout_s: float = APPEND_RESOLVE_S


_REQUIRED: Final[Mapping[str, object]] = {
    "subjects": ["log.>"],
    "storage": "file",
    "retention": "limits",
    "discard": "new",
    "max_age": 0,
    "max_msgs": -1,
    "max_msgs_per_subject": -1,
    "max_msg_size": -1,
    "allow_atomic": True,
    "allow_direct": True,
    "deny_delete": True,
    "deny_purge": True,
}
"""What hivefold asks for and insists on."""

_FORBIDDEN: Final = (
    "allow_rollup_hdrs",
    "allow_msg_ttl",
    "allow_msg_schedules",
    "allow_msg_counter",
    "discard_new_per_subject",
    "mirror",
    "mirror_direct",
    "no_ack",
    "persist_mode",
    "republish",
    "sealed",
    "sources",
    "subject_delete_marker_ttl",
    "subject_transform",
)
"""What lets somebody shorten, rewrite, bypass or lose the log: each must be off or absent."""


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """The stream as it was found: its copies, and how many bytes it has room for."""

    replicas: int
    room_bytes: int


async def prepare_stream(link: Link, settings: LogSettings) -> StreamFacts:
    """Makes sure that the stream exists and is fit to hold the log; lets it grow where the settings say so.

    Raises ConfigError that names each setting to change, LogCorruptError when the beginning is gone.
    """
    try:
        info = await _info_or_create(link, settings)
        faults = stream_faults(info["config"], settings)
        if faults:
            raise ConfigError(f"stream {STREAM} cannot hold the log: {'; '.join(faults)}")
        limit = info["config"]["max_bytes"]
        if -1 < limit < settings.max_bytes:
            limit = settings.max_bytes
            await api.call(link, f"STREAM.UPDATE.{STREAM}", {**info["config"], "max_bytes": limit})
    except NoRespondersError as error:
        raise api.without_jetstream(error) from error
    except api.ApiError as error:
        raise ConfigError(_advice(error, settings)) from error
    if info["state"]["first_seq"] > 1:
        raise LogCorruptError("the log does not begin at record 1: restore stream HF_LOG from a copy", position=1)
    room = limit - info["state"]["bytes"] if limit > -1 else settings.max_bytes
    return StreamFacts(info["config"]["num_replicas"], room)


def stream_faults(config: Mapping[str, Any], settings: LogSettings) -> list[str]:
    """What makes a stream unfit for the log, each with the value it must have."""
    faults = [
        f"{key} is {json.dumps(config.get(key))}, set it to {json.dumps(want)}"
        for key, want in _REQUIRED.items()
        if config.get(key) != want
    ]
    faults += [
        f"{key} is {json.dumps(config[key])}, turn it off"
        for key in _FORBIDDEN
        if config.get(key) and config[key] != "default"
    ]
    if config.get("num_replicas", 1) < settings.replicas:
        faults.append(f"num_replicas is {config.get('num_replicas', 1)}, set it to {settings.replicas}")
    return faults


async def _info_or_create(link: Link, settings: LogSettings) -> Any:
    try:
        return await api.call(link, f"STREAM.INFO.{STREAM}")
    except api.ApiError as error:
        if error.code != api.STREAM_MISSING:
            raise
    return await api.call(link, f"STREAM.CREATE.{STREAM}", wanted_stream(settings))


def wanted_stream(settings: LogSettings) -> dict[str, object]:
    """The configuration of a new stream."""
    return {"name": STREAM, **_REQUIRED, "num_replicas": settings.replicas, "max_bytes": settings.max_bytes}


def _advice(error: api.ApiError, settings: LogSettings) -> str:
    if error.code in _JETSTREAM_OFF:
        return "JetStream is off for this account: start nats-server with -js, or enable jetstream for the account"
    if error.code in api.STORAGE_SHORT:
        return (
            f"the NATS server has no room for a log of {settings.max_bytes} bytes: "
            "lower log_max_bytes or raise max_file_store of the server"
        )
    return f"the NATS server refused stream {STREAM}: {error}; check the permissions and limits of the account"

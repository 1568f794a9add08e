"""The streams that hold the log, one a segment: how they must be, how they are made, what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hivefold.bus import api
from hivefold.limits import APPEND_RESOLVE_S, APPEND_TIMEOUT_S, LOG_BYTES, SEGMENT_BYTES, SEGMENT_RECORDS
from hivefold.log.naming import STREAM, stream_name

_JETSTREAM_OFF: Final = (10039, 10076)


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How the log is kept: copies on the broker, most bytes, the size of segments, how long an append may take."""

    replicas: int = 1
    max_bytes: int = LOG_BYTES
    segment_max_records: int = SEGMENT_RECORDS
    segment_max_bytes: int = SEGMENT_BYTES
    archive: Path | None = None
    """Where the files of closed segments are, for those that are no longer on the broker."""
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
    "sources",
    "subject_delete_marker_ttl",
    "subject_transform",
)
"""What lets somebody shorten, rewrite, bypass or lose the log: each must be off or absent."""


def stream_faults(config: Mapping[str, Any], settings: LogSettings) -> list[str]:
    """What makes a stream unfit for the log, each with the value it must have."""
    required = sealed_stream({**_REQUIRED, "name": config["name"]}) if config.get("sealed") else _REQUIRED
    faults = [
        f"{key} is {json.dumps(config.get(key))}, set it to {json.dumps(want)}"
        for key, want in required.items()
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


def wanted_stream(settings: LogSettings, *, number: int = 1, first: int = 1) -> dict[str, object]:
    """The configuration of a new stream that holds a segment, from record `first` on."""
    return {
        "name": stream_name(number),
        **_REQUIRED,
        "num_replicas": settings.replicas,
        "max_bytes": settings.max_bytes,
        **({"first_seq": first} if first > 1 else {}),
    }


def sealed_stream(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a closed segment: nothing can be stored, and the next one may have its subjects."""
    return {**config, "subjects": [f"sealed.{config['name']}"], "sealed": True}


def advice(error: api.ApiError, settings: LogSettings) -> str:
    """What to do where the server refuses a stream of the log."""
    if error.code in _JETSTREAM_OFF:
        return "JetStream is off for this account: start nats-server with -js, or enable jetstream for the account"
    if error.code in api.STORAGE_SHORT:
        return (
            f"the NATS server has no room for a log of {settings.max_bytes} bytes: "
            "lower log_max_bytes or raise max_file_store of the server"
        )
    return f"the NATS server refused stream {STREAM}: {error}; check the permissions and limits of the account"

"""Who may do what on the embedded server, as its configuration says it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from hivefold.broker import Secret
from hivefold.limits import (
    BROKER_MESSAGE_BYTES,
)
from hivefold.log.naming import stream_name
from hivefold.server.limits import (
    SERVER_FILE_BYTES,
    SERVER_LOG_BYTES,
    SERVER_MEMORY_BYTES,
)

CORE_USER: Final = "coordinator-core"
NODES_USER: Final = "coordinator-nodes"
MIRROR_USER: Final = "coordinator-audit"
AUDIT_USER: Final = "auditor"
FOLLOWER_USER: Final = "follower"
SYSTEM_USER: Final = "system"
COORDINATOR_USERS: Final = (CORE_USER, NODES_USER, MIRROR_USER, AUDIT_USER, FOLLOWER_USER, SYSTEM_USER)
MIRROR_API: Final = "CORE.API"
"""Under which prefix AUDIT asks CORE for what a mirror of the log needs, and nothing else."""
CHECKPOINTS_API: Final = "NODES.API"
"""The same for the checkpoints, which NODES keeps."""
SEGMENTS_AHEAD: Final = 64
"""Segments of the log beyond those on the disk that can be mirrored until the server is started again: no one subject
names all that may come without naming the streams that hold keys, too. Each takes 1 ms of its start and 40 KB."""
_READS: Final = tuple(
    f"$JS.API.{call}" for call in ("INFO", "STREAM.LIST", "STREAM.INFO.*", "STREAM.MSG.GET.*", "DIRECT.GET.*")
)
"""Calls that read the mirrors."""
_CHECKPOINTS: Final = "HF_CHECKPOINTS"
_NODE: Final = "node."


def node_user(node_id: str) -> str:
    """The user name of a node; no fixed user can have it."""
    return f"{_NODE}{node_id}"


def node_of(user: str) -> str | None:
    """The node of a user name; None when it is not a node's."""
    return user.removeprefix(_NODE) if user.startswith(_NODE) else None


def inbox_prefix(node_id: str) -> str:
    """Where a node may listen for answers."""
    return f"_INBOX_{node_id}"


def node_permissions(node_id: str) -> dict[str, dict[str, list[str]]]:
    """All that a node may do: its own results, heartbeat, telemetry and work; content-addressed blobs.

    It hears the other nodes' heartbeats: where to pass on inference requests.
    """
    return {
        "publish": {
            "allow": [
                f"results.{node_id}.>",
                f"express.results.{node_id}.>",
                f"heartbeat.{node_id}",
                f"telemetry.{node_id}",
                f"inference.{node_id}.>",
                "blob.>",
                f"$JS.API.CONSUMER.MSG.NEXT.HF_WORK.{node_id}",
                f"$JS.ACK.HF_WORK.{node_id}.>",
                "$JS.API.DIRECT.GET.HF_BLOBS.>",
                "$JS.API.DIRECT.GET.HF_CHECKPOINTS",
                "$JS.API.INFO",
            ]
        },
        "subscribe": {
            "allow": [
                f"{inbox_prefix(node_id)}.>",
                f"control.{node_id}",
                f"express.work.{node_id}",
                "fleet.pulse",
                "heartbeat.*",
            ]
        },
    }


def mirror_subject(stream: str) -> str:
    """Where a stream is delivered to its mirror."""
    return f"audit.{stream}"


def mirrored_log(segments: int) -> list[str]:
    """The streams of the first `segments` segments of the log."""
    return [stream_name(number) for number in range(1, segments + 1)]


def mirrorer_permissions() -> dict[str, dict[str, list[str]]]:
    """Makes mirrors and reads them. It neither changes nor deletes any: nobody can but who runs the server."""
    calls = [*_READS, "$JS.API.STREAM.CREATE.*"]
    return {"publish": {"allow": calls}, "subscribe": {"allow": ["_INBOX.>"]}}


def auditor_permissions() -> dict[str, dict[str, list[str]]]:
    """Reads the mirrors, for nothing else is in their account; changes nothing, and hears nobody else's answers."""
    return {"publish": {"allow": list(_READS)}, "subscribe": {"allow": [f"_INBOX_{AUDIT_USER}.>"]}}


def follower_permissions() -> dict[str, dict[str, list[str]]]:
    """Follows the public events and the telemetry, and reads events that were missed; says nothing."""
    return {
        "publish": {"allow": ["$JS.API.INFO", "$JS.API.STREAM.INFO.HF_EVENTS", "$JS.API.DIRECT.GET.HF_EVENTS"]},
        "subscribe": {"allow": ["events.>", "telemetry.>", f"_INBOX_{FOLLOWER_USER}.>"]},
    }


def mirror_exports(streams: Iterable[str]) -> list[dict[str, object]]:
    """What an account gives to AUDIT, so that AUDIT can mirror these streams."""
    found: list[dict[str, object]] = []
    for stream in streams:
        calls = (*_mirror_calls(stream), _flow_control(stream))
        found += [{"service": subject, "accounts": ["AUDIT"]} for subject in calls]
        found.append({"stream": f"{mirror_subject(stream)}.>", "accounts": ["AUDIT"]})
    return found


def mirror_imports(account: str, api: str, streams: Iterable[str]) -> list[dict[str, object]]:
    """What AUDIT takes of it."""
    found: list[dict[str, object]] = []
    for stream in streams:
        found += [
            {"service": {"account": account, "subject": subject}, "to": subject.replace("$JS.API", api)}
            for subject in _mirror_calls(stream)
        ]
        found.append({"service": {"account": account, "subject": _flow_control(stream)}})
        found.append({"stream": {"account": account, "subject": f"{mirror_subject(stream)}.>"}})
    return found


def _mirror_calls(stream: str) -> tuple[str, ...]:
    create = f"$JS.API.CONSUMER.CREATE.{stream}"
    return create, f"{create}.>", f"$JS.API.STREAM.INFO.{stream}"


def _flow_control(stream: str) -> str:
    return f"$JS.FC.{stream}.>"


def server_configuration(
    *, host: str, port: int, directory: Path, passwords: Mapping[str, Secret], segments: int = SEGMENTS_AHEAD
) -> str:
    """The configuration file: loopback only as `host` says, fsync before each answer, accounts apart.

    AUDIT can mirror the first `segments` segments of the log.
    """
    log = mirrored_log(segments)
    jetstream = {
        "store_dir": str(directory / "store"),
        "sync_interval": "always",
        "max_memory_store": SERVER_MEMORY_BYTES,
        "max_file_store": SERVER_FILE_BYTES,
    }
    node_users = [user for user in passwords if node_of(user) is not None]
    accounts = {
        "CORE": {"jetstream": "enabled", "users": _users((CORE_USER,), passwords), "exports": mirror_exports(log)},
        "NODES": {
            "jetstream": "enabled",
            "users": _users((NODES_USER, FOLLOWER_USER, *node_users), passwords),
            "exports": mirror_exports([_CHECKPOINTS]),
        },
        "AUDIT": {
            "jetstream": "enabled",
            "users": _users((MIRROR_USER, AUDIT_USER), passwords),
            "imports": [
                *mirror_imports("CORE", MIRROR_API, log),
                *mirror_imports("NODES", CHECKPOINTS_API, [_CHECKPOINTS]),
            ],
        },
        "SYS": {"users": _users((SYSTEM_USER,), passwords)},
    }
    # NATS' configuration language takes JSON.
    return json.dumps(
        {
            "server_name": "hivefold",
            "host": host,
            "port": port,
            "max_payload": BROKER_MESSAGE_BYTES,
            "pid_file": str(directory / "server.pid"),
            "log_file": str(directory / "server.log"),
            "logfile_size_limit": SERVER_LOG_BYTES,
            "logfile_max_num": 3,
            "jetstream": jetstream,
            "accounts": accounts,
            "system_account": "SYS",
        },
        indent=2,
    )


def _users(users: Iterable[str], passwords: Mapping[str, Secret]) -> list[dict[str, object]]:
    return [_user(user, passwords[user]) for user in users]


def _user(user: str, password: Secret) -> dict[str, object]:
    entry: dict[str, object] = {"user": user, "password": password.reveal()}
    node_id = node_of(user)
    if node_id is not None:
        return {**entry, "permissions": node_permissions(node_id)}
    limited = {
        MIRROR_USER: mirrorer_permissions,
        AUDIT_USER: auditor_permissions,
        FOLLOWER_USER: follower_permissions,
    }.get(user)
    return {**entry, "permissions": limited()} if limited else entry

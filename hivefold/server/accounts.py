"""Who may do what on the embedded server, as its configuration says it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from hivefold.broker import Secret
from hivefold.limits import (
    BROKER_MESSAGE_BYTES,
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
MIRRORED: Final = ("HF_LOG",)
"""Streams of CORE that AUDIT mirrors."""
MIRROR_API: Final = "CORE.API"
"""Under which prefix AUDIT asks CORE for what a mirror needs, and nothing else."""
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
    """All that a node may do: its own results, heartbeat, telemetry and work; content-addressed blobs."""
    return {
        "publish": {
            "allow": [
                f"results.{node_id}.>",
                f"heartbeat.{node_id}",
                f"telemetry.{node_id}",
                "blob.>",
                f"$JS.API.CONSUMER.MSG.NEXT.HF_WORK.{node_id}",
                f"$JS.ACK.HF_WORK.{node_id}.>",
                "$JS.API.DIRECT.GET.HF_BLOBS.>",
                "$JS.API.DIRECT.GET.HF_CHECKPOINTS",
                "$JS.API.INFO",
            ]
        },
        "subscribe": {"allow": [f"{inbox_prefix(node_id)}.>", f"control.{node_id}", "fleet.pulse"]},
    }


def mirror_subject(stream: str) -> str:
    """Where CORE delivers a stream to its mirror."""
    return f"audit.{stream}"


def auditor_permissions() -> dict[str, dict[str, list[str]]]:
    """Reads the mirrors; changes nothing, and hears nobody else's answers."""
    reads = [
        f"$JS.API.{call}.{stream}" for stream in MIRRORED for call in ("STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET")
    ]
    return {"publish": {"allow": ["$JS.API.INFO", *reads]}, "subscribe": {"allow": [f"_INBOX_{AUDIT_USER}.>"]}}


def follower_permissions() -> dict[str, dict[str, list[str]]]:
    """Follows the public events and the telemetry, and reads events that were missed; says nothing."""
    return {
        "publish": {"allow": ["$JS.API.INFO", "$JS.API.STREAM.INFO.HF_EVENTS", "$JS.API.DIRECT.GET.HF_EVENTS"]},
        "subscribe": {"allow": ["events.>", "telemetry.>", f"_INBOX_{FOLLOWER_USER}.>"]},
    }


def mirror_exports() -> list[dict[str, object]]:
    """What CORE gives to AUDIT, so that AUDIT can mirror the log."""
    found: list[dict[str, object]] = [{"service": "$JS.FC.>", "accounts": ["AUDIT"]}]
    for stream in MIRRORED:
        found += [{"service": subject, "accounts": ["AUDIT"]} for subject in _mirror_calls(stream)]
        found.append({"stream": f"{mirror_subject(stream)}.>", "accounts": ["AUDIT"]})
    return found


def mirror_imports() -> list[dict[str, object]]:
    """What AUDIT takes of it."""
    found: list[dict[str, object]] = [{"service": {"account": "CORE", "subject": "$JS.FC.>"}}]
    for stream in MIRRORED:
        found += [
            {
                "service": {"account": "CORE", "subject": subject},
                "to": subject.replace("$JS.API", MIRROR_API),
            }
            for subject in _mirror_calls(stream)
        ]
        found.append({"stream": {"account": "CORE", "subject": f"{mirror_subject(stream)}.>"}})
    return found


def _mirror_calls(stream: str) -> tuple[str, ...]:
    create = f"$JS.API.CONSUMER.CREATE.{stream}"
    return create, f"{create}.>", f"$JS.API.STREAM.INFO.{stream}"


def server_configuration(*, host: str, port: int, directory: Path, passwords: Mapping[str, Secret]) -> str:
    """The configuration file: loopback only as `host` says, fsync before each answer, accounts apart."""
    jetstream = {
        "store_dir": str(directory / "store"),
        "sync_interval": "always",
        "max_memory_store": SERVER_MEMORY_BYTES,
        "max_file_store": SERVER_FILE_BYTES,
    }
    node_users = [user for user in passwords if node_of(user) is not None]
    accounts = {
        "CORE": {"jetstream": "enabled", "users": _users((CORE_USER,), passwords), "exports": mirror_exports()},
        "NODES": {"jetstream": "enabled", "users": _users((NODES_USER, FOLLOWER_USER, *node_users), passwords)},
        "AUDIT": {
            "jetstream": "enabled",
            "users": _users((MIRROR_USER, AUDIT_USER), passwords),
            "imports": mirror_imports(),
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
    limited = {AUDIT_USER: auditor_permissions, FOLLOWER_USER: follower_permissions}.get(user)
    return {**entry, "permissions": limited()} if limited else entry

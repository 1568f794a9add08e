"""The configuration that the embedded server gets."""

from __future__ import annotations

import json
from pathlib import Path

from hivefold.broker import Secret
from hivefold.config import Durability
from hivefold.server import accounts
from hivefold.server.durability import durability_of


def configuration(*nodes: str) -> dict[str, object]:
    users = (*accounts.COORDINATOR_USERS, *map(accounts.node_user, nodes))
    text = accounts.server_configuration(
        host="127.0.0.1",
        port=4222,
        directory=Path("/data"),
        passwords={user: Secret(f"of {user}") for user in users},
    )
    parsed: dict[str, object] = json.loads(text)
    return parsed


def test_every_answer_waits_for_the_disk() -> None:
    """JetStream's own default answers up to two minutes before it syncs."""
    jetstream = configuration()["jetstream"]
    assert isinstance(jetstream, dict)
    assert jetstream["sync_interval"] == "always"


def test_no_door_is_open_that_nobody_needs() -> None:
    """Loopback only; no monitoring, websocket, MQTT, leaf node, cluster or anonymous user."""
    found = configuration("a")

    assert found["host"] == "127.0.0.1"
    assert not {"http", "http_port", "websocket", "mqtt", "leafnodes", "cluster", "no_auth_user"} & set(found)


def test_the_log_is_in_an_account_without_nodes() -> None:
    """A node's key, stolen, does not even reach the account that holds the log."""
    found = configuration("a", "b")["accounts"]
    assert isinstance(found, dict)

    assert [user["user"] for user in found["CORE"]["users"]] == [accounts.CORE_USER]
    users = [accounts.NODES_USER, accounts.FOLLOWER_USER, "node.a", "node.b"]
    assert [user["user"] for user in found["NODES"]["users"]] == users
    assert all("permissions" in user for user in found["NODES"]["users"][1:])
    assert {accounts_of for export in found["CORE"]["exports"] for accounts_of in export["accounts"]} == {"AUDIT"}


def test_durability_is_read_from_a_servers_settings() -> None:
    """Always, at an interval, or not told: what is not told counts for nothing."""
    assert (
        durability_of({"jetstream": {"config": {"sync_always": True, "sync_interval": 1}}}) is Durability.FSYNC_ALWAYS
    )
    assert durability_of({"jetstream": {"config": {"sync_interval": 120}}}) is Durability.FSYNC_INTERVAL
    assert durability_of({"jetstream": {"config": {}}}) is Durability.UNKNOWN
    assert durability_of({}) is Durability.UNKNOWN

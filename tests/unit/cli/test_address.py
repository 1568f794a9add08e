"""How a command finds the fleet that it talks to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cli.address import Target
from cli.endpoints import DaemonEndpoint, Endpoints, remove_endpoints, write_endpoints
from hivefold.errors import InvalidRequestError, UnavailableError

FLEET = Endpoints(
    nats="nats://127.0.0.1:4222",
    coordinator="127.0.0.1:7400",
    coordinators=(DaemonEndpoint("coordinator", "127.0.0.1:7400", 11),),
    nodes=(DaemonEndpoint("node-1", "127.0.0.1:7401", 12),),
    pids={"nats": 10, "coordinator": 11, "node-1": 12},
)


def test_a_given_address_wins(tmp_path: Path) -> None:
    """--address is used without a look at the directory."""
    assert Target(address="host:80", dir=tmp_path / "none").coordinators() == ("host:80",)


def test_without_an_address_the_local_fleet_is_used(tmp_path: Path) -> None:
    """The coordinator of DIR/endpoints.json is used."""
    write_endpoints(tmp_path, FLEET)

    assert Target(dir=tmp_path).coordinators() == ("127.0.0.1:7400",)


def test_of_a_group_the_leader_comes_first(tmp_path: Path) -> None:
    """All coordinators of DIR/endpoints.json are known, the one that leads first."""
    others = (DaemonEndpoint("a", "127.0.0.1:1", 1), DaemonEndpoint("b", "127.0.0.1:2", 2))
    write_endpoints(tmp_path, replace(FLEET, coordinator="127.0.0.1:2", coordinators=others))

    assert Target(dir=tmp_path).coordinators() == ("127.0.0.1:2", "127.0.0.1:1")


def test_several_addresses_may_be_given(tmp_path: Path) -> None:
    """A comma stands between them."""
    assert Target(address="a:80, b:81", dir=tmp_path).coordinators() == ("a:80", "b:81")


@pytest.mark.parametrize("address", ["a:80,b", ",", "host", ":80", "host:", "host:0", "host:99999", "host:http"])
def test_a_malformed_address_is_a_usage_error(address: str) -> None:
    """What is no host:port is refused with an example."""
    with pytest.raises(InvalidRequestError, match="host:port"):
        Target(address=address).coordinators()


def test_no_fleet_is_unavailable_and_says_how_to_start_one(tmp_path: Path) -> None:
    """Without endpoints.json the error names the command that makes it."""
    with pytest.raises(UnavailableError, match="start one with: hivefold up"):
        Target(dir=tmp_path).coordinators()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nats": 1}'])
def test_a_damaged_file_is_unavailable(tmp_path: Path, text: str) -> None:
    """A file that is not what `up` writes is never used in part."""
    (tmp_path / "endpoints.json").write_text(text)

    with pytest.raises(UnavailableError, match="cannot be read"):
        Target(dir=tmp_path).coordinators()


def test_endpoints_say_where_everything_is(tmp_path: Path) -> None:
    """The file holds what its readers in any language were promised; removing it twice is harmless."""
    write_endpoints(tmp_path, FLEET)
    assert json.loads((tmp_path / "endpoints.json").read_text()) == {
        "nats": "nats://127.0.0.1:4222",
        "coordinator": "127.0.0.1:7400",
        "coordinators": [{"id": "coordinator", "grpc": "127.0.0.1:7400", "pid": 11}],
        "nodes": [{"id": "node-1", "grpc": "127.0.0.1:7401", "pid": 12}],
        "pids": {"nats": 10, "coordinator": 11, "node-1": 12},
    }

    remove_endpoints(tmp_path)
    remove_endpoints(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_flag_counts_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--dir wins over HIVEFOLD_ADDRESS, which wins over HIVEFOLD_DIR."""
    write_endpoints(tmp_path, FLEET)
    monkeypatch.setenv("HIVEFOLD_ADDRESS", "elsewhere:80")
    monkeypatch.setenv("HIVEFOLD_DIR", str(tmp_path))

    assert Target(dir=tmp_path).coordinators() == ("127.0.0.1:7400",)
    assert Target().coordinators() == ("elsewhere:80",)

    monkeypatch.delenv("HIVEFOLD_ADDRESS")
    assert Target().coordinators() == ("127.0.0.1:7400",)

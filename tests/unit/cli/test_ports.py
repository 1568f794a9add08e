"""Ports of a local fleet."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.local.ports import Ports
from hivefold.errors import ConfigError
from hivefold.server.ports import any_free, is_free


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        yield owner.getsockname()[1]


def test_a_given_port_that_is_taken_is_a_clear_error(tmp_path: Path, taken: int) -> None:
    """The error names the port and the daemon."""
    with pytest.raises(ConfigError, match=f"port {taken} for coordinator is taken"):
        Ports(tmp_path).choose("coordinator", given=taken)


def test_a_taken_port_is_passed_over(tmp_path: Path, taken: int) -> None:
    """Without a given port the next free one is used."""
    assert Ports(tmp_path).choose("coordinator", first=taken) > taken


def test_no_port_is_handed_out_twice(tmp_path: Path) -> None:
    """Daemons that have not started yet keep their ports to themselves."""
    ports = Ports(tmp_path)
    chosen = [ports.choose(f"node-{index}", given=0) for index in range(20)]

    assert len(set(chosen)) == 20
    with pytest.raises(ConfigError):
        ports.choose("coordinator", given=chosen[0])


def test_the_ports_of_the_last_start_are_taken_again(tmp_path: Path) -> None:
    """Clients find a fleet where it was."""
    ports = Ports(tmp_path)
    chosen = {name: ports.choose(name, given=0) for name in ("coordinator", "node-1")}
    ports.save()

    again = Ports(tmp_path)
    assert {name: again.choose(name, given=0) for name in chosen if is_free("127.0.0.1", chosen[name])} == chosen


def test_a_chosen_port_is_none_that_outgoing_connections_take() -> None:
    """Else one could hold the port of a daemon that restarts."""
    lent = [int(word) for word in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()]
    assert all(not lent[0] <= any_free("127.0.0.1") <= lent[1] for _ in range(50))


def test_a_port_is_not_given_to_two_who_do_not_listen_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server and a coordinator of one start, say: with four ports to choose from, four get one each."""
    monkeypatch.setattr("hivefold.server.ports._KEPT", range(31_996, 32_000))
    given = {any_free("127.0.0.1") for _ in range(4)}
    assert len(given) == 4

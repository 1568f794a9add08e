"""DIR/endpoints.json: where the processes of a local fleet are, for people, programs and the other commands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

FILE_NAME: Final = "endpoints.json"


@dataclass(frozen=True, slots=True)
class DaemonEndpoint:
    """A coordinator or a node: its id, its gRPC address "host:port", its process (0 while it has none)."""

    id: str
    grpc: str
    pid: int


@dataclass(frozen=True, slots=True)
class Endpoints:
    """A local fleet: NATS URL, the leader's "host:port", all coordinators and nodes, each daemon's process by name."""

    nats: str
    coordinator: str
    coordinators: tuple[DaemonEndpoint, ...]
    nodes: tuple[DaemonEndpoint, ...]
    pids: Mapping[str, int]

    def as_plain(self) -> dict[str, Any]:
        """The content of the file."""
        return {
            "nats": self.nats,
            "coordinator": self.coordinator,
            "coordinators": [asdict(coordinator) for coordinator in self.coordinators],
            "nodes": [asdict(node) for node in self.nodes],
            "pids": dict(self.pids),
        }


def write_endpoints(directory: Path, endpoints: Endpoints) -> None:
    """Replaces DIR/endpoints.json at once: a reader sees the old or the new file, never half of one."""
    temporary = directory / f".{FILE_NAME}.tmp"
    temporary.write_text(json.dumps(endpoints.as_plain(), indent=2) + "\n", encoding="utf-8")
    temporary.replace(directory / FILE_NAME)


def remove_endpoints(directory: Path) -> None:
    """Removes the file: no fleet runs here any more."""
    (directory / FILE_NAME).unlink(missing_ok=True)

"""Which fleet a command talks to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from cli.endpoints import read_endpoints
from cli.output import Shown
from hivefold.errors import InvalidRequestError

DEFAULT_DIRECTORY: Final = Path(".hivefold")


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Target(Shown):
    """How a command prints, and which fleet it talks to."""

    address: Annotated[str, Parameter(env_var="HIVEFOLD_ADDRESS")] = ""
    """The coordinator's gRPC address, host:port. Without it the one in DIR/endpoints.json."""
    dir: Annotated[Path, Parameter(env_var="HIVEFOLD_DIR")] = DEFAULT_DIRECTORY
    """Directory of a local fleet that `hivefold up` runs."""

    def coordinator(self) -> str:
        """The coordinator's address. Raises InvalidRequestError, or UnavailableError when there is no fleet."""
        if not self.address:
            return read_endpoints(self.dir).coordinator
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
            raise InvalidRequestError(f"{self.address!r} is no address: give host:port, e.g. 127.0.0.1:7400")
        return self.address

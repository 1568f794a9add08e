"""Options that both daemons have when they are run by hand, against any NATS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65_535))]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonOptions:
    """Flags of a daemon; what is left out comes from HIVEFOLD_*, NATS_*, the NATS context, the file, the default.

    Passwords are never flags: everybody on the machine can read them.
    """

    config: Path | None = None
    """A TOML file."""
    nats_servers: Annotated[list[str] | None, Parameter(negative=())] = None
    """NATS server, nats://host:port; may be repeated."""
    nats_user: str | None = None
    """Who logs in to NATS."""
    nats_password_file: Path | None = None
    """A file that holds the password."""
    nats_credentials_file: Path | None = None
    """A NATS credentials file."""
    id: str | None = None
    """The daemon's name in the fleet."""
    host: str | None = None
    """Where its gRPC server listens; loopback unless told otherwise."""
    port: Port | None = None
    """The port of its gRPC server; 0: any free one."""
    data_dir: Path | None = None
    """Where it keeps what it needs again."""

    def flags(self, **more: object) -> Mapping[str, object]:
        """The flags by the names that hivefold.config knows."""
        return {
            "nats.servers": self.nats_servers,
            "nats.user": self.nats_user,
            "nats.password_file": self.nats_password_file,
            "nats.credentials_file": self.nats_credentials_file,
            "id": self.id,
            "host": self.host,
            "port": self.port,
            "data_dir": self.data_dir,
            **more,
        }

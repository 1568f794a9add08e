"""`hivefold coordinator`: one coordinator against any NATS; which of a group leads."""

from __future__ import annotations

import os
from typing import Literal

from cyclopts import App
from cyclopts.types import PositiveInt

from cli.daemons import DaemonOptions
from hivefold.imports import lean_imports

app = App(name="coordinator", help="Run a coordinator, or have another one lead.")
app.command("cli.hand_over:hand_over", name="hand-over", help="Have another coordinator of the group lead.")


@app.command
def run(
    options: DaemonOptions = DaemonOptions(),  # noqa: B008 - frozen
    *,
    durability: Literal["fsync-always", "fsync-interval", "unknown"] | None = None,
    monitor_url: str | None = None,
    log_replicas: PositiveInt | None = None,
) -> int:
    """Run one coordinator until Ctrl-C or SIGTERM.

    Parameters
    ----------
    durability
        The weakest durability of the NATS server that is accepted.
    monitor_url
        The server's monitoring endpoint, to look up its durability: http://host:8222.
    log_replicas
        Copies of the log in a NATS cluster.
    """
    with lean_imports():
        from coordinator.app import run as run_coordinator
        from hivefold.config import load_coordinator_config

    flags = options.flags(durability=durability, monitor_url=monitor_url, log_replicas=log_replicas)
    return run_coordinator(load_coordinator_config(flags, os.environ, options.config))

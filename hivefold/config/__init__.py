"""What a daemon is told: flags > HIVEFOLD_* > NATS_* and NATS contexts > a TOML file > defaults.

The keys are the same everywhere: `port` is `--port`, `HIVEFOLD_COORDINATOR_PORT` and `port` in the
file; `core.user` is `HIVEFOLD_COORDINATOR_CORE_USER` and `user` in the table `[core]`. The table
`[nats]` holds for every connection whose own table says nothing else.
"""

from hivefold.config.daemons import (
    CoordinatorConfig,
    Durability,
    NodeConfig,
    load_coordinator_config,
    load_node_config,
    write_coordinator_config,
    write_node_config,
)

__all__ = [
    "CoordinatorConfig",
    "Durability",
    "NodeConfig",
    "load_coordinator_config",
    "load_node_config",
    "write_coordinator_config",
    "write_node_config",
]

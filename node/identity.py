"""Who the node is: an id that survives restarts, a boot id that does not."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hivefold.clock import Clock
from hivefold.entropy import Entropy
from hivefold.errors import ConfigError
from hivefold.ids import NAME_RULE, BootId, NodeId, is_name, sortable_id

ID_FILE: Final = "node-id"
"""In a node's data directory: the name that it made or was given at its first start."""


@contextmanager
def held_data_dir(data_dir: Path) -> Iterator[None]:
    """Keeps `data_dir` for this process alone; the hold ends with the process. Raises ConfigError."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"{data_dir} cannot be used: {error.strerror}; choose a data_dir that can be written"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ConfigError(f"another node runs on {data_dir}; stop it, or give this one a data_dir of its own") from None
    finally:
        os.close(lock)


def node_identity(data_dir: Path, configured: str, clock: Clock, entropy: Entropy) -> tuple[NodeId, BootId]:
    """The node's id, as configured or else kept in `data_dir`, and a new boot id.

    Raises ConfigError when the id is malformed, contradicts the one kept, or cannot be kept.
    """
    time_ms = clock.now_us() // 1000
    boot_id = BootId(sortable_id("boot", time_ms, entropy.draw(10)))
    if configured and not is_name(configured):
        raise ConfigError(f"the node id {configured!r} is not {NAME_RULE}; choose another")
    path = data_dir / ID_FILE
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = path.read_text(encoding="ascii").strip() if path.exists() else ""
        if not kept:
            kept = configured or sortable_id("node", time_ms, entropy.draw(10))
            _keep(path, kept)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the node's id cannot be kept in {path}: {error}; choose a data_dir that can be written"
        ) from (None)
    if not is_name(kept):
        raise ConfigError(f"{path} holds {kept!r}, which is not {NAME_RULE}; remove the file to get a new id")
    if configured and configured != kept:
        raise ConfigError(
            f"{data_dir} belongs to node {kept!r} and not {configured!r}; give each node a data_dir of its own, "
            f"or remove {path} to rename the node"
        )
    return NodeId(kept), boot_id


def _keep(path: Path, text: str) -> None:
    """Writes the file whole or not at all, and durably."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)

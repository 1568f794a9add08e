"""Where a local fleet keeps what, and who may use it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hivefold.config.daemons import KEY_FILE
from hivefold.errors import ConfigError
from hivefold.server.private import make_directory


@dataclass(frozen=True, slots=True)
class Layout:
    """The directory of a local fleet.

    DIR/endpoints.json   where its processes are, while it runs
    DIR/nats/            nats-server: the log, the work, the blobs
    DIR/config/          configuration of each daemon (0600)
    DIR/state/           what the daemons keep
    DIR/logs/            what the daemons say
    DIR/signing.key      the key that signs the log (0600)
    DIR/run/             locks held by the running daemons
    """

    root: Path

    def make(self) -> None:
        """Makes the directories, for the owner only."""
        for folder in (self.root, self.config, self.logs, self.run):
            make_directory(folder)

    @property
    def nats(self) -> Path:
        """The embedded nats-server's directory."""
        return self.root / "nats"

    @property
    def config(self) -> Path:
        """The daemons' configuration files."""
        return self.root / "config"

    @property
    def logs(self) -> Path:
        """The daemons' logs."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """The daemons' locks."""
        return self.root / "run"

    @property
    def key_file(self) -> Path:
        """The key that signs the log."""
        return self.root / KEY_FILE

    def state(self, name: str) -> Path:
        """What the daemon `name` keeps."""
        return self.root / "state" / name


@contextlib.contextmanager
def owned(directory: Path) -> Iterator[None]:
    """Takes the directory for one `up` at a time; the lock goes with the process. Raises ConfigError."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"a fleet runs in {directory} already (process {_read(lock)}); stop it, or name another --dir"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(lock)


def _read(lock: int) -> str:
    return os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"

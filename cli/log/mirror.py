"""How a command reaches the mirror of the log, and reads it with the credential of an auditor."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.endpoints import FILE_NAME
from hivefold.errors import ConfigError

if TYPE_CHECKING:
    from hivefold.broker import BrokerSettings
    from hivefold.bus.checkpoints import NatsCheckpoints
    from hivefold.log.mirror import MirroredLog


@dataclass(frozen=True, slots=True)
class Mirror:
    """The mirror: records, and the checkpoints beside them."""

    log: MirroredLog
    checkpoints: NatsCheckpoints


def speak_of_trouble_only() -> None:
    """What the broker's connections log goes to standard error, from warnings on: standard output is for data."""
    from hivefold import observe

    observe.configure_logging(level=os.environ.get("HIVEFOLD_LOG_LEVEL") or "warning")


@asynccontextmanager
async def open_mirror(settings: BrokerSettings) -> AsyncIterator[Mirror]:
    """The mirror behind a connection to the account AUDIT. Raises ConfigError, UnavailableError, LogCorruptError."""
    from hivefold import limits
    from hivefold.bus.checkpoints import NatsCheckpoints
    from hivefold.bus.connection import connect
    from hivefold.log.mirror import MirroredLog

    speak_of_trouble_only()
    link = await connect(settings, wait_s=limits.BROKER_ANSWER_S)
    try:
        yield Mirror(await MirroredLog.open(link), NatsCheckpoints(link))
    finally:
        await link.close()


def auditor(directory: Path, config: Path | None) -> BrokerSettings:
    """How an auditor reaches the account AUDIT: as a file says, else as the local fleet in `directory` lets it.

    Raises ConfigError.
    """
    from hivefold.broker import BrokerSettings
    from hivefold.config import load_coordinator_config
    from hivefold.server.accounts import AUDIT_USER
    from hivefold.server.private import Passwords

    passwords = directory / "nats" / "passwords"
    if config is None and (passwords / AUDIT_USER).is_file():
        try:
            url = str(json.loads((directory / FILE_NAME).read_text())["nats"])
        except (OSError, ValueError, KeyError):
            raise ConfigError(f"no fleet runs in {directory}: start it, or name a server with --config") from None
        password = Passwords(passwords).of(AUDIT_USER)
        return BrokerSettings((url,), user=AUDIT_USER, password=password, inbox_prefix=f"_INBOX_{AUDIT_USER}")
    named = load_coordinator_config({}, os.environ, config).audit
    if named is None:
        raise ConfigError(
            f"there is no fleet in {directory}: say how to reach its mirror in the table [audit] of a file, "
            "and name that with --config"
        )
    return named

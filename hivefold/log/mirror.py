"""The mirror of the log in the account AUDIT: what is stored there, nobody who holds the log's account can change."""

from __future__ import annotations

from typing import Any

from hivefold.bus import streams
from hivefold.bus.link import Link
from hivefold.server.accounts import MIRROR_API, MIRRORED, mirror_subject


async def prepare_mirrors(link: Link) -> None:
    """Makes the mirrors that are missing. `link` is a connection to the account AUDIT.

    A mirror keeps what it has when the log is cut, rewritten or deleted: it is what the log is compared with.
    Raises ConfigError, BrokerUnavailableError.
    """
    for stream in MIRRORED:
        await streams.prepare_stream(link, mirror_config(stream))


def mirror_config(stream: str) -> dict[str, Any]:
    """A mirror as JetStream takes it."""
    external = {"api": MIRROR_API, "deliver": mirror_subject(stream)}
    return {
        "name": stream,
        "storage": "file",
        "retention": "limits",
        "allow_direct": True,
        "deny_delete": True,
        "deny_purge": True,
        "mirror": {"name": stream, "external": external},
    }

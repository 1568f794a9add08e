"""Finishes what a nats-server did not that was killed while it changed a stream: else it would not find it again.

nats-server keeps a stream's configuration in meta.inf and a checksum of that in meta.sum, one written after the other,
each durably. Killed in between, it passes over the stream when it starts ("checksums do not match"), with all that is
stored in it. For the log that would be the segment that was just closed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Final

from hivefold.server.highway import highway_hash_64

CONFIG: Final = "meta.inf"
CHECKSUM: Final = "meta.sum"


def finish_changes(store: Path) -> list[str]:
    """Gives each stream below a server's store directory the checksum of its configuration; which ones lacked it.

    MUST NOT be called while a server runs there. Only a configuration that is younger than its checksum, is
    whole and names its stream is taken for a change that was not finished: damage is left for the server to tell.
    Raises OSError.
    """
    return [path.name for path in sorted(store.glob("jetstream/*/streams/*")) if _finished(path)]


def _finished(stream: Path) -> bool:
    config, checksum = stream / CONFIG, stream / CHECKSUM
    if not config.is_file() or not checksum.is_file() or config.stat().st_mtime_ns <= checksum.stat().st_mtime_ns:
        return False
    content = config.read_bytes()
    wanted = checksum_of(stream.name, content)
    if checksum.read_text() == wanted or not _is_of(stream.name, content):
        return False
    checksum.write_text(wanted)
    return True


def checksum_of(name: str, config: bytes) -> str:
    """What meta.sum holds for a stream: HighwayHash-64 under the SHA-256 of its name, in hex."""
    return highway_hash_64(config, hashlib.sha256(name.encode()).digest()).hex()


def _is_of(name: str, content: bytes) -> bool:
    try:
        found = json.loads(content)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("name") == name

"""Where snapshots of the state are kept: caches beside the log, which may be deleted at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol

from hivefold.bus import api
from hivefold.bus.link import Link
from hivefold.bus.streams import prepare_stream
from hivefold.errors import NotFoundError
from hivefold.limits import BROKER_ANSWER_S, SNAPSHOT_BYTES, SNAPSHOTS_KEPT

STREAM: Final = "HF_SNAPSHOTS"
_MANIFESTS: Final = "snapshot.manifest"


class SnapshotStore(Protocol):
    """A few snapshots, each a run of parts under a name, and a manifest that says that all of them are there."""

    async def put_part(self, name: str, number: int, data: bytes) -> None:
        """Stores a part, at most BROKER_MESSAGE_BYTES less headers. Raises BrokerUnavailableError."""
        ...

    async def put_manifest(self, manifest: bytes) -> None:
        """Makes a snapshot known whose parts are stored. Of more than SNAPSHOTS_KEPT the oldest is forgotten."""
        ...

    async def manifests(self) -> Sequence[bytes]:
        """The manifests, the one stored last first. Raises BrokerUnavailableError."""
        ...

    async def part(self, name: str, number: int) -> bytes:
        """A part. Raises NotFoundError, BrokerUnavailableError."""
        ...

    async def drop(self, name: str) -> None:
        """Deletes the parts of a snapshot. Idempotent."""
        ...


class MemorySnapshots:
    """SnapshotStore in memory."""

    def __init__(self) -> None:
        self.parts: dict[tuple[str, int], bytes] = {}
        self.known: list[bytes] = []

    async def put_part(self, name: str, number: int, data: bytes) -> None:
        """Stores a part."""
        await asyncio.sleep(0)
        self.parts[name, number] = data

    async def put_manifest(self, manifest: bytes) -> None:
        """Makes a snapshot known."""
        await asyncio.sleep(0)
        self.known[:] = [*self.known, manifest][-SNAPSHOTS_KEPT:]

    async def manifests(self) -> Sequence[bytes]:
        """The manifests, the one stored last first."""
        await asyncio.sleep(0)
        return self.known[::-1]

    async def part(self, name: str, number: int) -> bytes:
        """A part."""
        await asyncio.sleep(0)
        try:
            return self.parts[name, number]
        except KeyError:
            raise NotFoundError(f"snapshot {name} has no part {number}") from None

    async def drop(self, name: str) -> None:
        """Deletes the parts of a snapshot."""
        await asyncio.sleep(0)
        for key in [key for key in self.parts if key[0] == name]:
            del self.parts[key]


async def open_snapshots(link: Link, *, replicas: int = 1) -> JetStreamSnapshots:
    """Opens the stream of snapshots, creating it where there is none. Raises ConfigError, BrokerUnavailableError."""
    await prepare_stream(link, stream_config(replicas))
    return JetStreamSnapshots(link)


def stream_config(replicas: int) -> dict[str, Any]:
    """The stream as JetStream takes it: what is oldest makes room."""
    return {
        "name": STREAM,
        "subjects": ["snapshot.>"],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_bytes": SNAPSHOT_BYTES,
        "max_msgs_per_subject": SNAPSHOTS_KEPT,
        "allow_direct": True,
        "num_replicas": replicas,
    }


class JetStreamSnapshots:
    """SnapshotStore over the stream HF_SNAPSHOTS of the account CORE, which only coordinators reach."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def put_part(self, name: str, number: int, data: bytes) -> None:
        """Stores a part."""
        await api.store(self._link, _part(name, number), data, timeout_s=BROKER_ANSWER_S)

    async def put_manifest(self, manifest: bytes) -> None:
        """Makes a snapshot known."""
        await api.store(self._link, _MANIFESTS, manifest, timeout_s=BROKER_ANSWER_S)

    async def manifests(self) -> Sequence[bytes]:
        """The manifests, the one stored last first."""
        found: list[bytes] = []
        sequence = 1
        while len(found) < SNAPSHOTS_KEPT:
            try:
                message = await api.message_at(self._link, STREAM, {"seq": sequence, "next_by_subj": _MANIFESTS})
            except NotFoundError:
                break
            found.append(message.data)
            sequence = message.sequence + 1
        return found[::-1]

    async def part(self, name: str, number: int) -> bytes:
        """A part."""
        return (await api.last_on(self._link, STREAM, _part(name, number))).data

    async def drop(self, name: str) -> None:
        """Deletes the parts of a snapshot."""
        await api.call(self._link, f"STREAM.PURGE.{STREAM}", {"filter": f"snapshot.part.{name}.*"})


def _part(name: str, number: int) -> str:
    return f"snapshot.part.{name}.{number}"

"""Snapshots: the state at a position, so that a start replays what came since and not the whole log.

A cache, never the truth. A snapshot is read only where its format and the code that folds are those of today, the
log's record at its position has the hash that the fold had then, and its bytes have their digest. At any doubt it
is passed over for an older one, and at last for a replay from record 1. None is ever repaired.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Final

import structlog

import coordinator.core
import coordinator.wire
import hivefold
from coordinator.followers import Followed
from coordinator.history import hash_at
from coordinator.replay import NOTHING, Replayed, collector_paused, replay
from coordinator.wire.snapshot import SnapshotInvalidError, StateDecoder, encode_state
from hivefold import limits
from hivefold.entropy import Entropy
from hivefold.errors import HivefoldError, LogCorruptError, NotFoundError, UnavailableError
from hivefold.failpoints import Failpoint, reach
from hivefold.log.port import ReadableLog
from hivefold.log.snapshots import SnapshotStore
from hivefold.proof.merkle import CompactRange

_log = structlog.get_logger(__name__)
_FORMAT: Final = 1
_FOLDERS: Final = (coordinator.core, coordinator.wire)
_FILES: Final = (
    *("element_types.py", "errors.py", "ids.py", "limits.py", "log/chain.py", "log/port.py", "models/limits.py"),
    *("models/passport/facts.py", "models/passport/messages.py", "sketch.py"),
)
"""What those import of the shared library."""


@cache
def reducer_version() -> str:
    """SHA-256 over the sources that decide what a log folds to; "" where they are not there to be read."""
    return version_of(folding_sources())


def folding_sources() -> list[Path]:
    """The sources that decide what a log folds to."""
    files = [path for package in _FOLDERS for path in Path(package.__path__[0]).rglob("*.py")]
    return [*files, *(Path(hivefold.__path__[0]) / name for name in _FILES)]


def version_of(files: Iterable[Path]) -> str:
    """SHA-256 over names and contents of files in any order; "" where one cannot be read."""
    digest = hashlib.sha256()
    try:
        for path in sorted(files):
            content = path.read_bytes()
            digest.update(b"%s %d\n" % (path.name.encode(), len(content)) + content)
    except OSError:
        return ""
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot is of, and how it is stored. `hash` and `tree` in hex; the digest is over the bytes of all parts.

    `name` is that of the parts, drawn at random: two coordinators may write at once.
    """

    name: str
    sequence: int
    hash: str
    tree: tuple[str, ...]
    reducer: str
    parts: int
    digest: str
    format: int = _FORMAT

    def to_json(self) -> bytes:
        """The stored form."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Reads the stored form. Raises SnapshotInvalidError."""
        try:
            fields = json.loads(data)
            return cls(**{**fields, "tree": tuple(fields["tree"])})
        except (ValueError, TypeError, KeyError) as error:
            raise SnapshotInvalidError(f"its manifest does not read: {error!r}") from error


async def write_snapshot(store: SnapshotStore, folded: Replayed, name: str) -> bool:
    """Writes a snapshot in small steps between which all else goes on; whether the state was small enough for one.

    `name` MUST be new. Raises BrokerUnavailableError.
    """
    try:
        return await _write(store, folded, name)
    except (HivefoldError, asyncio.CancelledError):
        # Parts that no manifest names would push out snapshots that are whole.
        with contextlib.suppress(HivefoldError):
            await store.drop(name)
        raise


async def _write(store: SnapshotStore, folded: Replayed, name: str) -> bool:
    forgotten = (await store.manifests())[limits.SNAPSHOTS_KEPT - 1 :]
    parts = _Parts(store, name)
    for frame in encode_state(folded.state):
        await parts.add(frame)
        if parts.size > limits.SNAPSHOT_BYTES:
            await store.drop(name)
            return False
    await parts.end()
    manifest = Manifest(
        name=name,
        sequence=folded.state.sequence,
        hash=folded.head_hash.hex(),
        tree=tuple(node.hex() for node in folded.tree.hashes),
        reducer=reducer_version(),
        parts=parts.count,
        digest=parts.digest.hexdigest(),
    )
    reach(Failpoint.MID_SNAPSHOT)
    await store.put_manifest(manifest.to_json())
    for data in forgotten:
        with contextlib.suppress(SnapshotInvalidError):
            await store.drop(Manifest.from_json(data).name)
    return True


class _Parts:
    """Cuts frames into parts, compresses and stores them."""

    def __init__(self, store: SnapshotStore, name: str) -> None:
        self._store = store
        self._name = name
        self._buffer = bytearray()
        self.count = 0
        self.size = 0
        self.digest = hashlib.sha256()

    async def add(self, frame: bytes) -> None:
        self.size += len(frame)
        self._buffer += frame
        while len(self._buffer) >= limits.SNAPSHOT_PART_BYTES:
            await self._put(bytes(self._buffer[: limits.SNAPSHOT_PART_BYTES]))
            del self._buffer[: limits.SNAPSHOT_PART_BYTES]
        await asyncio.sleep(0)

    async def end(self) -> None:
        if self._buffer:
            await self._put(bytes(self._buffer))

    async def _put(self, data: bytes) -> None:
        self.digest.update(data)
        # zlib lets others run meanwhile; level 1 leaves a quarter at 150 MB/s.
        whole = len(data) == limits.SNAPSHOT_PART_BYTES
        compressed = await asyncio.to_thread(zlib.compress, data, 1) if whole else zlib.compress(data, 1)
        await self._store.put_part(self._name, self.count, compressed)
        self.count += 1


async def restore(store: SnapshotStore, log: ReadableLog) -> Replayed:
    """The fold of the whole log as it is now, from the latest snapshot that is beyond doubt.

    Raises LogCorruptError, BrokerUnavailableError.
    """
    head = (await log.head()).sequence
    with collector_paused():
        start = await latest_snapshot(store, log, head)
    return await replay(log, up_to=head, start=start) if head else start


async def latest_snapshot(store: SnapshotStore, log: ReadableLog, head: int) -> Replayed:
    """The latest usable snapshot of this very log; the fold of nothing where there is none."""
    try:
        manifests = await store.manifests()
    except HivefoldError as error:
        _log.warning("snapshots not read", error=error.message)
        return NOTHING
    for data in manifests:
        try:
            return await _read(store, log, Manifest.from_json(data), head)
        except (SnapshotInvalidError, NotFoundError, UnavailableError, LogCorruptError) as error:
            _log.warning("snapshot passed over", why=error.message)
    return NOTHING


async def _read(store: SnapshotStore, log: ReadableLog, manifest: Manifest, head: int) -> Replayed:
    if manifest.format != _FORMAT or manifest.reducer != reducer_version():
        raise SnapshotInvalidError("another release wrote it")
    if not 0 < manifest.sequence <= head:
        raise SnapshotInvalidError(f"it is of record {manifest.sequence}, and the log ends at {head}")
    head_hash = await hash_at(log, manifest.sequence)
    if head_hash.hex() != manifest.hash:
        raise SnapshotInvalidError(f"record {manifest.sequence} is not the one that it was taken after")
    decoder, digest = StateDecoder(), hashlib.sha256()
    for number in range(manifest.parts):
        data = _decompressed(await store.part(manifest.name, number))
        digest.update(data)
        decoder.feed(data)
    if digest.hexdigest() != manifest.digest:
        raise SnapshotInvalidError("its bytes are not those that were written")
    state = decoder.state()
    if state.sequence != manifest.sequence:
        raise SnapshotInvalidError(f"it says record {manifest.sequence} and holds the state at {state.sequence}")
    try:
        tree = CompactRange(0, state.sequence, tuple(bytes.fromhex(node) for node in manifest.tree))
    except ValueError as error:
        raise SnapshotInvalidError(f"its tree of hashes does not fit: {error}") from error
    _log.info("snapshot read", sequence=state.sequence, parts=manifest.parts)
    return Replayed(state, head_hash, tree)


def _decompressed(data: bytes) -> bytes:
    """A part, bounded whatever it claims to be."""
    unpack = zlib.decompressobj()
    try:
        return unpack.decompress(data, limits.SNAPSHOT_PART_BYTES)
    except zlib.error as error:
        raise SnapshotInvalidError(f"a part does not decompress: {error}") from error


@dataclass(slots=True)
class Snapshotter:
    """Writes a snapshot whenever replaying what came since the last one would take long.

    `source` gives what folds the log in this process; `leads` whether it also writes the log: then it waits
    longer, so that standbys, which have time, come first.
    """

    store: SnapshotStore
    entropy: Entropy
    source: Callable[[], Followed]
    leads: Callable[[], bool]
    every_records: int = limits.SNAPSHOT_RECORDS
    _sequence: int = 0
    _bytes: int = 0

    async def run(self) -> None:
        """Writes until it is cancelled."""
        while True:
            await asyncio.sleep(limits.SNAPSHOT_LOOK_S)
            try:
                await self.look()
            except HivefoldError as error:
                _log.warning("snapshot not written, trying again", reason=error.reason, error=error.message)
                await asyncio.sleep(limits.SNAPSHOT_RETRY_S)

    async def look(self) -> None:
        """Writes a snapshot if one is due and nobody else wrote one meanwhile. Raises BrokerUnavailableError."""
        source = self.source()
        if not reducer_version() or not self._is_due(source):
            return
        newest = await self._newest(source.state.sequence)
        if newest > self._sequence:
            # The first one found is that which this process started from: what it replayed since still counts.
            self._bytes = source.folded_bytes if self._sequence else 0
            self._sequence = newest
            if not self._is_due(source):
                return
        folded, size = source.folded, source.folded_bytes
        written = await write_snapshot(self.store, folded, self.entropy.draw(12).hex())
        self._sequence, self._bytes = folded.state.sequence, size
        if written:
            _log.info("snapshot written", sequence=self._sequence)
        else:
            _log.warning("the state is too large for a snapshot: a start replays the log", sequence=self._sequence)

    def _is_due(self, source: Followed) -> bool:
        patience = limits.SNAPSHOT_LEADER_PATIENCE if self.leads() else 1
        return (
            source.state.sequence - self._sequence >= patience * self.every_records
            or source.folded_bytes - self._bytes >= patience * limits.SNAPSHOT_LOG_BYTES
        )

    async def _newest(self, up_to: int) -> int:
        """Position of the latest snapshot that this code may read; 0 where there is none."""
        for data in await self.store.manifests():
            with contextlib.suppress(SnapshotInvalidError):
                manifest = Manifest.from_json(data)
                if (manifest.format, manifest.reducer) == (_FORMAT, reducer_version()) and manifest.sequence <= up_to:
                    return manifest.sequence
        return 0

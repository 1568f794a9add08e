"""Removes the bytes of removed models, once nothing refers to them: after the record, again after a failure or a start.

Content is stored in chunks by their digest, so that two models may share some. What goes is what the manifests of
all models that stay do not name. While a model file is being added nothing goes: its chunks may be among those that
are stored already.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog

from coordinator.core.commands import ConfirmArtifactRemoved
from coordinator.core.model import State
from coordinator.core.plan import owed_discards
from coordinator.followers import Committed
from coordinator.writer import Writer
from hivefold.blobs.content import get_manifest
from hivefold.blobs.manifest import Manifest, part_key
from hivefold.blobs.port import ChunkStore
from hivefold.errors import HivefoldError, LogError, NotFoundError, NotLeaderError
from hivefold.ids import Digest
from hivefold.models.limits import FORGET_WAIT_S

_log = structlog.get_logger(__name__)


class Artifacts:
    """Level-triggered: what the state calls discarded is removed until that is recorded."""

    def __init__(self, writer: Writer, chunks: ChunkStore) -> None:
        self._writer = writer
        self._chunks = chunks
        self._adding = 0
        self._removing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._wake.set()
        writer.on_commit(self._on_commit)

    @asynccontextmanager
    async def adding(self) -> AsyncIterator[None]:
        """While model files are stored and registered: nothing is removed meanwhile."""
        async with self._removing:
            self._adding += 1
        try:
            yield
        finally:
            self._adding -= 1

    async def run(self) -> None:
        """Removes what is owed, for ever; what fails is tried again. Raises NotLeaderError."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while owed := owed_discards(self._writer.state):
                try:
                    async with self._removing:
                        if not self._adding:
                            await self._remove(owed[0])
                            continue
                except (NotLeaderError, LogError):
                    raise
                except HivefoldError as error:
                    _log.warning("bytes not removed, trying again", reason=error.reason, error=str(error))
                await asyncio.sleep(FORGET_WAIT_S)

    def _on_commit(self, commits: Sequence[Committed]) -> None:
        if commits[-1].state.discarded:
            self._wake.set()

    async def _remove(self, root: Digest) -> None:
        """Chunks first, the manifest last: it says which chunks are left where this is cut short.

        The store knows of no terms: one that was deposed asks the log first, for its successor may have removed these
        bytes already, and stored them again for another model. (What a process does that stands still after it asked,
        nobody can call back.)
        """
        try:
            manifest = await get_manifest(self._chunks, root)
        except NotFoundError:
            manifest = None
        if manifest is not None:
            shared = await self._shared(self._writer.state, root)
            await self._writer.confirm()
            if root not in owed_discards(self._writer.state):
                return
            for digest in sorted(_digests(manifest) - shared):
                await self._chunks.delete(f"chunk.{digest.hex()}")
            for part in range(len(manifest.parts()) - 1, -1, -1):
                await self._chunks.delete(part_key(root, part))
        await self._writer.execute(ConfirmArtifactRemoved(root))
        _log.info("model.bytes_removed", root=root)

    async def _shared(self, state: State, root: Digest) -> set[bytes]:
        """The chunks of all that stays: of registered models, and of those that open jobs read."""
        jobs = (state.jobs[job_id].model for job_id in state.open_jobs)
        models = [*state.models.values(), *(model for model in jobs if model is not None)]
        roots = {model.artifact.root for model in models}
        found: set[bytes] = set()
        for other in sorted(roots - {root}):
            try:
                found |= _digests(await get_manifest(self._chunks, other))
            except NotFoundError:
                # A model whose bytes are lost needs none of these.
                continue
        return found


def _digests(manifest: Manifest) -> set[bytes]:
    return {manifest.digest(index) for index in range(manifest.chunk_count)}

"""The keys that open a job's data: its own, and that of its stored input."""

from __future__ import annotations

from dataclasses import dataclass, field

from coordinator.core.model import InferSpec, Job
from hivefold.blobs import content
from hivefold.blobs.keys import KeyStore
from hivefold.blobs.port import ChunkStore
from hivefold.blobs.sealing import DataKey, is_data_key_id, job_key_id
from hivefold.errors import DataRefusedError, InvalidRequestError, NotFoundError


@dataclass(frozen=True, slots=True)
class WorkKeys:
    """What a node needs: the key that seals a job's outputs and the one that opens its input; empty: none is needed."""

    job_key: bytes = field(default=b"", repr=False)
    data_key: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class JobKeys:
    """Finds keys by job. `store` keeps them; `chunks` holds the manifests that name those of inputs."""

    store: KeyStore
    chunks: ChunkStore

    async def ids(self, job: Job) -> tuple[str, ...]:
        """The names of all keys that open a job's data. Raises BrokerUnavailableError."""
        if not isinstance(job.spec.kind, InferSpec):
            return ()
        data = await self._data_key_id(job)
        return (job_key_id(job.job_id), data) if data else (job_key_id(job.job_id),)

    async def for_work(self, job: Job) -> WorkKeys:
        """The keys for those who work on a job; makes the job's own at first.

        An input whose key is gone is theirs to refuse. Raises BrokerUnavailableError, LimitExceededError.
        """
        if not isinstance(job.spec.kind, InferSpec):
            return WorkKeys()
        own = await self.store.obtain(job_key_id(job.job_id))
        data = await self._data_key_id(job)
        if not data:
            return WorkKeys(own.secret)
        try:
            return WorkKeys(own.secret, (await self.store.get(data)).secret)
        except DataRefusedError:
            return WorkKeys(own.secret)

    async def for_output(self, job: Job) -> DataKey:
        """The key of a job's outputs. Raises DataRefusedError (JOB_ERASED) when it is gone, BrokerUnavailableError."""
        return await self.store.get(job_key_id(job.job_id))

    async def _data_key_id(self, job: Job) -> str:
        assert isinstance(job.spec.kind, InferSpec)
        try:
            key_id = await content.key_of(self.chunks, job.spec.kind.data_set.content.root)
        except (NotFoundError, DataRefusedError, InvalidRequestError):
            return ""
        # A manifest is a client's word: it must not name the key of somebody's outputs.
        return key_id if is_data_key_id(key_id) else ""

"""Keeps the models loaded that the coordinator ordered: those that it ordered last, whatever becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog
from google.protobuf.message import DecodeError

from hivefold.errors import DataRefusedError, HivefoldError, NotFoundError, Reason, UnavailableError
from hivefold.models.limits import KEEP_LOOK_S, KEEP_RETRY_MAX_S, KEEP_RETRY_S
from hivefold.v1 import model_pb2, work_pb2
from node.models import Place
from node.residency.files import Transfer
from node.wire import failure_of

_log = structlog.get_logger(__name__)


class Shelf(Protocol):
    """The models of the node, as far as keeping them needs: node.models.ModelShelf."""

    @property
    def fetching(self) -> Mapping[str, Transfer]:
        """What is fetched now, by digest."""
        ...

    def has(self, digest: str) -> bool:
        """Whether the model is loaded."""
        ...

    async def take(self, model: model_pb2.Model) -> Place:
        """A lease on the model, loaded. Raises HivefoldError."""
        ...

    def give(self, place: Place) -> None:
        """Ends a lease."""
        ...

    def keep(self, model: model_pb2.Model, *, pinned: bool) -> None:
        """Pins the model, or no longer."""
        ...

    def release(self, digest: str) -> None:
        """Unloads the model once nobody uses it."""
        ...


@dataclass(slots=True)
class _Wish:
    """A model that is to be kept; `failure` is why it could not be loaded when that was last tried."""

    kept: work_pb2.KeptModel
    task: asyncio.Task[None]
    failure: HivefoldError | None = None


class Keeper:
    """Brings about what one boot of a node was told to keep. `find` gives a model by its name and version."""

    def __init__(self, boot_id: str, shelf: Shelf, find: Callable[[str, str], Awaitable[model_pb2.Model]]) -> None:
        self._boot_id = boot_id
        self._shelf = shelf
        self._find = find
        self._wishes: dict[str, _Wish] = {}
        self._term = 0
        self.sequence = 0
        """Position of the order that holds; 0 before the first."""

    def order(self, data: bytes) -> None:
        """Takes an order as it came; one that is not for this boot or that was overtaken is passed over."""
        try:
            order = work_pb2.KeepModels.FromString(data)
        except DecodeError:
            return
        if order.boot_id != self._boot_id or (order.term, order.sequence) < (self._term, self.sequence):
            return
        self._term, self.sequence = order.term, order.sequence
        wanted: dict[str, work_pb2.KeptModel] = {}
        for kept in order.models:
            known = wanted.setdefault(kept.digest, kept)
            known.pinned |= kept.pinned
        for digest in [digest for digest, wish in self._wishes.items() if wanted.get(digest) != wish.kept]:
            self._wishes.pop(digest).task.cancel()
            if digest not in wanted:
                self._shelf.release(digest)
        for digest, kept in wanted.items():
            if digest not in self._wishes:
                self._wishes[digest] = _Wish(kept, asyncio.create_task(self._keep(kept)))

    def progress(self) -> list[work_pb2.ModelProgress]:
        """What is fetched or loaded now, and what could not be loaded, for heartbeats."""
        found = {
            digest: work_pb2.ModelProgress(digest=digest, bytes_done=one.done_bytes, bytes_total=one.total_bytes)
            for digest, one in self._shelf.fetching.items()
        }
        for digest, wish in self._wishes.items():
            if not self._shelf.has(digest):
                progress = found.setdefault(digest, work_pb2.ModelProgress(digest=digest))
                if wish.failure is not None:
                    progress.failure.CopyFrom(failure_of(wish.failure))
        return [found[digest] for digest in sorted(found)]

    def stop(self) -> None:
        """Ends the endeavour; what is loaded stays."""
        for wish in self._wishes.values():
            wish.task.cancel()
        self._wishes.clear()

    async def _keep(self, kept: work_pb2.KeptModel) -> None:
        """Loads a model, and loads it again whenever it is gone, until it is cancelled."""
        wait_s = KEEP_RETRY_S
        while True:
            try:
                await self._bring(kept)
            except HivefoldError as error:
                self._note(kept, error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, KEEP_RETRY_MAX_S)
                continue
            self._wishes[kept.digest].failure = None
            wait_s = KEEP_RETRY_S
            while self._shelf.has(kept.digest):
                await asyncio.sleep(KEEP_LOOK_S)
            _log.info("model.kept_again", model=kept.model, digest=kept.digest)

    async def _bring(self, kept: work_pb2.KeptModel) -> None:
        name, _, version = kept.model.partition("@")
        model = await self._find(name, version)
        if model.digest != kept.digest:
            raise DataRefusedError(
                f"{kept.model} is registered with another digest than it was ordered with; keep it again",
                reason=Reason.DIGEST_MISMATCH,
                metadata={"digest": kept.digest},
            )
        self._shelf.keep(model, pinned=kept.pinned)
        self._shelf.give(await self._shelf.take(model))

    def _note(self, kept: work_pb2.KeptModel, error: HivefoldError) -> None:
        """What may pass is tried again; of all else the coordinator hears, which looks for another node."""
        _log.warning("model.not_kept", model=kept.model, reason=error.reason.value, error=error.message)
        if not isinstance(error, UnavailableError | NotFoundError):
            self._wishes[kept.digest].failure = error
            self._shelf.release(kept.digest)

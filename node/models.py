"""The models of a node: files by digest in a local folder, the ones in use each in an actor."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import structlog

from actors.bridge import ask
from actors.model import LoadModel, ModelBehavior, ModelMessage, ModelReply
from actors.runtime import ActorRef, BehaviorFailedError, spawn
from hivefold.errors import DataRefusedError, HivefoldError, Reason, UnavailableError
from hivefold.ids import is_digest
from hivefold.limits import MODEL_BYTES, MODEL_FILES_KEPT, MODEL_LOAD_MS, MODELS_LOADED
from hivefold.v1 import model_pb2
from node.content import Content

_log = structlog.get_logger(__name__)

ModelActor: TypeAlias = ActorRef[ModelMessage, ModelReply]


@dataclass(slots=True)
class Place:
    """A model on the shelf. `users` keep it from being unloaded; each lane is an actor that computes one batch."""

    digest: str
    ready: asyncio.Task[Path]
    users: int = 0
    lanes: list[ModelActor] = field(default_factory=list)
    idle: list[ModelActor] = field(default_factory=list)


class ModelShelf:
    """Fetches, verifies and loads models; the one unused for longest makes room for the next."""

    def __init__(self, folder: Path, content: Content, make_behavior: Callable[[], ModelBehavior]) -> None:
        self._folder = folder
        self._content = content
        self._make_behavior = make_behavior
        self._places: dict[str, Place] = {}

    @property
    def loaded(self) -> tuple[str, ...]:
        """Digests of the loaded models, sorted."""
        return tuple(sorted(place.digest for place in self._places.values() if place.lanes))

    async def take(self, model: model_pb2.Model) -> Place:
        """The model, loaded; `give` it back after use. Raises HivefoldError when it cannot be had."""
        place = self._places.pop(model.digest, None)
        if place is None:
            self._make_room()
            place = Place(model.digest, asyncio.create_task(self._first(model)))
        self._places[model.digest] = place  # at the end: used last
        place.users += 1
        try:
            await asyncio.shield(place.ready)
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):
                self._drop(place)
            self.give(place)
            raise
        return place

    def has(self, digest: str) -> bool:
        """Whether the model is loaded."""
        place = self._places.get(digest)
        return place is not None and bool(place.lanes)

    def held(self, digest: str) -> Place | None:
        """The model, as from `take`, if it is loaded."""
        place = self._places.get(digest)
        if place is None or not place.lanes:
            return None
        self._places[digest] = self._places.pop(digest)  # at the end: used last
        place.users += 1
        return place

    def give(self, place: Place) -> None:
        """The model is not used any more by the caller of `take` or `held`."""
        place.users -= 1
        if not place.users and self._places.get(place.digest) is not place:
            self._drop(place)

    def release(self, digest: str) -> None:
        """Takes a model off the shelf; its memory is free once nobody uses it. The next `take` loads it again."""
        place = self._places.pop(digest, None)
        if place is not None and not place.users:
            self._drop(place)

    @asynccontextmanager
    async def lane(self, place: Place) -> AsyncIterator[ModelActor]:
        """An actor that has the model and computes for nobody else. One that fails or hangs is replaced."""
        actor = place.idle.pop() if place.idle else await self._open(place, await place.ready)
        try:
            yield actor
        except (BehaviorFailedError, UnavailableError):
            place.lanes.remove(actor)
            actor.stop()
            raise
        finally:
            if actor in place.lanes:
                place.idle.append(actor)

    def stop(self) -> tuple[ModelActor, ...]:
        """Tells every model to unload; the actors, for whoever wants to wait."""
        places = list(self._places.values())
        for place in places:
            place.ready.cancel()
            self._drop(place)
        return tuple(actor for place in places for actor in place.lanes)

    def _drop(self, place: Place) -> None:
        if self._places.get(place.digest) is place:
            del self._places[place.digest]
        for actor in place.lanes:
            actor.stop()

    def _make_room(self) -> None:
        unused = [place for place in self._places.values() if not place.users]
        for place in unused[: max(0, len(self._places) - MODELS_LOADED + 1)]:
            _log.info("model.unloaded", digest=place.digest)
            self._drop(place)

    async def _first(self, model: model_pb2.Model) -> Path:
        path = await self._fetched(model)
        place = self._places[model.digest]
        try:
            place.idle.append(await self._open(place, path))
        except DataRefusedError as error:
            if error.reason in {Reason.DIGEST_MISMATCH, Reason.FILE_UNREADABLE}:
                path.unlink(missing_ok=True)
            raise
        _log.info("model.loaded", model=f"{model.name}@{model.version}", digest=model.digest)
        return path

    async def _open(self, place: Place, path: Path) -> ModelActor:
        actor: ModelActor = spawn(self._make_behavior, name=f"model-{place.digest[:12]}")
        try:
            await ask(actor, LoadModel(path, place.digest), deadline_ms=MODEL_LOAD_MS)
        except BaseException:
            actor.stop()
            raise
        place.lanes.append(actor)
        return actor

    async def _fetched(self, model: model_pb2.Model) -> Path:
        """The model's file, fetched if it is not there. Its name is its digest; it is verified when it is loaded."""
        if not is_digest(model.digest) or not 0 < model.artifact.size_bytes <= MODEL_BYTES:
            raise DataRefusedError(
                f"the work names a model with digest {model.digest[:64]!r} of {model.artifact.size_bytes} bytes, "
                "which cannot be; register the model again",
                reason=Reason.MODEL_INVALID,
            )
        path = self._folder / f"{model.digest}.onnx"
        if path.exists():
            path.touch()
            return path
        partial = path.with_suffix(".partial")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._download(model, partial)
            partial.replace(path)
            self._forget_oldest()
        except OSError as error:
            raise HivefoldError(
                f"the model cannot be kept in {self._folder}: {error.strerror or error}; free space there",
                reason=Reason.FILE_UNREADABLE,
            ) from error
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        return path

    async def _download(self, model: model_pb2.Model, to: Path) -> None:
        state = hashlib.sha256()
        with to.open("wb") as file:
            async with aclosing(self._content.stream(model.artifact.root)) as pieces:
                async for piece in pieces:
                    state.update(piece)
                    file.write(piece)
        if state.hexdigest() != model.digest:
            raise DataRefusedError(
                f"the stored bytes of {model.name}@{model.version} do not have its digest; register the model again",
                reason=Reason.DIGEST_MISMATCH,
                metadata={"digest": model.digest},
            )

    def _forget_oldest(self) -> None:
        """Keeps the folder bounded; files of loaded models stay."""
        files = sorted(self._folder.glob("*.onnx"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files[MODEL_FILES_KEPT:]:
            if file.stem not in self._places:
                file.unlink(missing_ok=True)

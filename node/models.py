"""The models of a node: loaded on demand, leased while they are used, each kept by an actor of its own.

They are run by the node's lanes: a few actors, whichever model it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import structlog

from actors.bridge import ask
from actors.footprint import Footprint
from actors.model import Inferred, InferRows, LoadModel, ModelBehavior, ModelMessage, ModelReply, OpenModel, UnloadModel
from actors.runtime import ActorRef, BehaviorFailedError, spawn
from actors.together import Batched, InferBatch, Together
from hivefold.clock import Clock, SystemClock
from hivefold.errors import DataRefusedError, HivefoldError, LimitExceededError, Reason, UnavailableError
from hivefold.limits import MODEL_LOAD_MS
from hivefold.v1 import model_pb2
from node.content import Content
from node.lanes import Lane, Lanes
from node.residency.files import ModelFiles, Transfer
from node.residency.limits import MODEL_REQUESTS_WAITING, MODEL_UNLOAD_MS, ROOM_LOOK_MS
from node.residency.peaks import Peaks
from node.residency.policy import HOST, NEVER, Full, Memory, Phase, Residency, Resident, Rules
from node.residency.port import ResidentModel
from node.residency.quiet import Quiet
from node.residency.refusals import no_room
from node.residency.room import unmeasured

_log = structlog.get_logger(__name__)

ModelActor: TypeAlias = ActorRef[ModelMessage, ModelReply]
_IMPORTANCE: Final = "resident.priority"
"""The label that says which models stay longest: 1, 2 or 3."""


@dataclass(slots=True, eq=False)
class Place:
    """A loaded model, and the actor that keeps it."""

    digest: str
    resident: Resident
    keeper: ModelActor
    model: OpenModel
    footprint: Footprint
    direct: Together | None = None
    """Runs batches in the caller's thread while a lease keeps the model; None where that is not advisable."""
    noted: dict[int, int] = field(default_factory=dict)
    """What of its footprint was taken over."""


@dataclass(slots=True, eq=False)
class _Asked:
    """A model that waits for room or is being loaded, and how many wait for it."""

    model: model_pb2.Model
    answer: asyncio.Future[Place]
    users: int = 0


class ModelShelf:
    """Has models loaded as node.residency.policy decides; node.residency.port.Residents. For one event loop."""

    def __init__(
        self,
        folder: Path,
        content: Content,
        make_behavior: Callable[[], ModelBehavior],
        *,
        clock: Clock | None = None,
        rules: Rules | None = None,
        memory: Callable[[], Memory] = unmeasured,
        peaks: Peaks | None = None,
        lanes: Lanes | None = None,
    ) -> None:
        self._content = content
        self._make_behavior = make_behavior
        self._clock = clock or SystemClock()
        self._memory = memory
        self._peaks = peaks or Peaks()
        self._quiet = Quiet()
        self._lanes = lanes or Lanes()
        self._desk = Residency(rules or Rules())
        self._files = ModelFiles(folder, content, self._desk.residents)
        self._places: dict[str, Place] = {}
        self._asked: dict[str, _Asked] = {}
        self._kept: dict[str, tuple[model_pb2.Model, bool]] = {}
        """What is to be loaded, and whether it is pinned; not pinned it is out once it was loaded."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    @property
    def loaded(self) -> tuple[str, ...]:
        """Digests of the loaded models, sorted."""
        return tuple(sorted(digest for digest, place in self._places.items() if place.resident.phase is Phase.READY))

    @property
    def fetching(self) -> Mapping[str, Transfer]:
        """What is fetched now, by digest."""
        return self._files.fetching

    # -- leases -------------------------------------------------------------

    async def take(self, model: model_pb2.Model) -> Place:
        """A lease on the model, loaded; `give` it back after use. Waits for room, as long as the rules say.

        Raises HivefoldError when it cannot be had: NODE_FULL when others keep the room, OUT_OF_MEMORY when it does
        not fit at all.
        """
        place = self.held(model.digest)
        if place is not None:
            return place
        asked = self._asked.get(model.digest) or self._ask(model)
        if asked.users >= MODEL_REQUESTS_WAITING:
            raise self._no_room(model, Full.LINE)
        asked.users += 1
        try:
            return await asyncio.shield(asked.answer)
        except asyncio.CancelledError:
            self._desist(asked)
            raise

    def has(self, digest: str) -> bool:
        """Whether the model is loaded, and nobody told it to go."""
        place = self._places.get(digest)
        return place is not None and place.resident.phase is Phase.READY and not place.resident.released

    def held(self, digest: str) -> Place | None:
        """A lease as from `take`, if the model is loaded and does not make room for others."""
        place = self._places.get(digest)
        return place if place is not None and self._desk.lease(place.resident) else None

    def give(self, place: Place) -> None:
        """Ends a lease."""
        if self._desk.end(place.resident, self._clock.monotonic_ms()) and self._desk.wants_room():
            self._step()

    async def run(self, place: Place, what: InferRows | InferBatch, *, deadline_ms: int) -> Inferred | Batched:
        """Runs a leased model in a lane. Raises as Lanes.run does; a model that broke is loaded anew for the next."""
        try:
            return await self._lanes.run(place.model, what, deadline_ms=deadline_ms)
        except (BehaviorFailedError, UnavailableError) as error:
            place.direct = None
            if isinstance(error, BehaviorFailedError):
                self._desk.release(place.digest)
            raise

    # -- wishes (node.residency.port.Residents) -------------------------------

    def keep(self, model: model_pb2.Model, *, pinned: bool) -> None:
        """Loads the model; pinned it stays until it is released."""
        self._kept[model.digest] = (model, pinned)
        self._desk.pin(model.digest, pinned=pinned)
        self._bring_kept()

    def release(self, digest: str) -> None:
        """Unloads the model as soon as nobody uses it; whoever asks for it then has it loaded again."""
        self._kept.pop(digest, None)
        self._desk.release(digest)
        self._step()

    def resident(self) -> tuple[ResidentModel, ...]:
        """The models that are there or on their way."""
        return tuple(
            ResidentModel(digest, found.phase is Phase.READY, found.pinned, found.users, sum(found.held.values()))
            for digest, found in sorted(self._desk.residents.items())
        )

    def expected_bytes(self, model: model_pb2.Model) -> int:
        """The memory that the model takes when it is loaded: measured, or estimated by its file until then."""
        return self._peaks.expected_bytes(model.digest, model.artifact.size_bytes)

    # -- the end --------------------------------------------------------------

    def stop(self) -> tuple[ModelActor | Lane, ...]:
        """Tells every model to unload; the actors, for whoever wants to wait."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        keepers = [place.keeper for place in self._places.values()]
        for keeper in keepers:
            keeper.stop()
        return (*self._lanes.stop(), *keepers)

    async def save(self) -> None:
        """Keeps what was measured for the next start."""
        for place in self._places.values():
            self._weigh(place)
        await self._peaks.save()

    # -- what the policy decides ----------------------------------------------

    def _ask(self, model: model_pb2.Model) -> _Asked:
        expected = {HOST: self.expected_bytes(model)}
        importance = model.labels.get(_IMPORTANCE, "")
        full = self._desk.ask(
            model.digest,
            expected,
            self._clock.monotonic_ms(),
            importance=int(importance) if importance in {"1", "2", "3"} else 2,
            pinned=self._kept.get(model.digest, (None, False))[1],
        )
        if full is not None:
            raise self._no_room(model, full)
        asked = self._asked[model.digest] = _Asked(model, asyncio.get_running_loop().create_future())
        asked.answer.add_done_callback(_looked_at)
        self._step()
        return asked

    def _desist(self, asked: _Asked) -> None:
        """One who asked does not want the model any more."""
        if asked.answer.done():
            if not asked.answer.cancelled() and asked.answer.exception() is None:
                self.give(asked.answer.result())
            return
        asked.users -= 1
        if not asked.users and asked.model.digest in self._desk.line:
            self._desk.withdraw(asked.model.digest)
            self._settled(asked).cancel()
            self._step()

    def _step(self) -> None:
        """Does what is due, and sees to it that it is asked for again in time."""
        if self._stopped:
            return
        for place in self._places.values():
            self._weigh(place)
        steps = self._desk.step(self._clock.monotonic_ms(), self._memory())
        for resident in steps.unload:
            self._start(self._unload(self._places[resident.digest]))
        for resident in steps.again:
            asked = self._asked[resident.digest]
            self._desk.resume(resident, asked.users)
            self._settled(asked).set_result(self._places[resident.digest])
        for resident in steps.load:
            self._start(self._load(self._asked[resident.digest], resident))
        for waiter, why in steps.refuse:
            asked = self._asked[waiter.digest]
            error = self._no_room(asked.model, why)
            _log.warning("model.refused", model=asked.model.name, digest=waiter.digest, error=error.message)
            self._settled(asked).set_exception(error)
        self._wake()

    def _no_room(self, model: model_pb2.Model, why: Full) -> LimitExceededError:
        return no_room(model, why, self._desk.residents, self.expected_bytes(model), self._memory())

    def _settled(self, asked: _Asked) -> asyncio.Future[Place]:
        """What those who asked wait for; nobody joins them any more."""
        del self._asked[asked.model.digest]
        return asked.answer

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_ms = self._clock.monotonic_ms()
        due_ms = self._desk.due_ms(now_ms, ROOM_LOOK_MS)
        if due_ms < NEVER:
            self._timer = asyncio.get_running_loop().call_later(max(1, due_ms - now_ms) / 1000, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._step()
        self._bring_kept()

    def _bring_kept(self) -> None:
        """Has those loaded that are to be and are not; what did not work is tried again with the next look."""
        for digest, (model, _) in list(self._kept.items()):
            if digest not in self._desk.residents and digest not in self._asked:
                self._start(self._bring(model))

    async def _bring(self, model: model_pb2.Model) -> None:
        try:
            self.give(await self.take(model))
        except HivefoldError as error:
            _log.warning("model.not_kept", model=model.name, reason=error.reason.value, error=error.message)
        else:
            if not self._kept.get(model.digest, (model, True))[1]:
                del self._kept[model.digest]

    def _start(self, doing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load(self, asked: _Asked, resident: Resident) -> None:
        model = asked.model
        try:
            place = await self._loaded(model, resident)
        except BaseException as error:
            self._desk.gone(resident)
            answer = self._settled(asked)
            if isinstance(error, asyncio.CancelledError):
                answer.cancel()
                raise
            answer.set_exception(error)
        else:
            self._places[model.digest] = place
            self._note(place)
            held = place.footprint.held_bytes or self._peaks.steady_bytes(model.digest, model.artifact.size_bytes)
            resident.expected = {HOST: self._peaks.steady_bytes(model.digest, model.artifact.size_bytes)}
            self._desk.loaded(resident, {HOST: held}, asked.users, self._clock.monotonic_ms())
            self._settled(asked).set_result(place)
            _log.info("model.loaded", model=f"{model.name}@{model.version}", digest=model.digest, bytes=held)
            await self._peaks.save()
        finally:
            self._step()

    async def _loaded(self, model: model_pb2.Model, resident: Resident) -> Place:
        path = await self._fetched(model)
        try:
            async with self._quiet.turn(alone=not self._peaks.measured(model.digest)):
                return await self._open(model, path, resident)
        except DataRefusedError as error:
            if error.reason in {Reason.DIGEST_MISMATCH, Reason.FILE_UNREADABLE}:
                path.unlink(missing_ok=True)
            raise

    async def _unload(self, place: Place) -> None:
        _log.info("model.unloaded", digest=place.digest)
        self._weigh(place)
        async with self._quiet.turn(alone=False):
            # One that does not answer keeps its memory: the next measurement shows it.
            with suppress(HivefoldError):
                await ask(place.keeper, UnloadModel(), deadline_ms=MODEL_UNLOAD_MS)
            place.keeper.stop()
        del self._places[place.digest]
        self._desk.gone(place.resident)
        self._step()

    def _weigh(self, place: Place) -> None:
        """Takes over what the model's actors saw of its memory."""
        if place.footprint.held_bytes > place.resident.held.get(HOST, 0):
            place.resident.held = {HOST: place.footprint.held_bytes}
            self._note(place)

    def _note(self, place: Place) -> None:
        seen = dict(place.footprint.peaks)
        self._peaks.note(place.digest, {rows: size for rows, size in seen.items() if place.noted.get(rows) != size})
        place.noted = seen

    async def _open(self, model: model_pb2.Model, path: Path, resident: Resident) -> Place:
        keeper, footprint = self._open_keeper(model), Footprint()
        try:
            loaded = await ask(keeper, LoadModel(path, model.digest, footprint), deadline_ms=MODEL_LOAD_MS)
            assert loaded is not None
        except BaseException:
            keeper.stop()
            raise
        return Place(model.digest, resident, keeper, loaded.model, footprint, loaded.direct)

    def _open_keeper(self, model: model_pb2.Model) -> ModelActor:
        return spawn(self._make_behavior, name=f"model-{model.digest[:12]}")

    async def _fetched(self, model: model_pb2.Model) -> Path:
        return await self._files.fetched(model)


def _looked_at(answer: asyncio.Future[Place]) -> None:
    """An answer that nobody waits for any more may be an error."""
    if not answer.cancelled():
        answer.exception()

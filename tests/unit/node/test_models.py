"""The models of a node over fakes: leases, room, pins, idle time, what is measured."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from actors.backends.echo import EchoBackend, EchoSession
from actors.model import ModelBehavior
from hivefold.blobs.content import upload_bytes
from hivefold.blobs.memory import MemoryChunks
from hivefold.clock import ManualClock
from hivefold.errors import DataRefusedError, LimitExceededError, Reason
from hivefold.v1 import model_pb2
from node.content import Content
from node.models import ModelShelf, Place
from node.residency.limits import MODEL_REQUESTS_WAITING
from node.residency.peaks import Peaks
from node.residency.policy import HOST, Memory, Residency, Rules
from tests.fixtures.onnx_models import doubling_model


@dataclass
class Shelf:
    """A shelf, and the models that may be put on it."""

    shelf: ModelShelf
    clock: ManualClock
    peaks: Peaks
    backend: EchoBackend
    models: list[model_pb2.Model] = field(default_factory=list)
    free: int = 1 << 40

    def __getitem__(self, index: int) -> model_pb2.Model:
        return self.models[index]

    async def use(self, index: int) -> None:
        """Loads a model, and gives it back."""
        self.shelf.give(await self.shelf.take(self.models[index]))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for the actors; time itself moves only by hand."""
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)

    async def loaded(self, *indices: int) -> None:
        """Waits until exactly these are loaded."""
        digests = tuple(sorted(self.models[index].digest for index in indices))
        await self.until(lambda: self.shelf.loaded == digests)


@asynccontextmanager
async def shelf_of(folder: Path, count: int, rules: Rules, backend: EchoBackend | None = None) -> AsyncIterator[Shelf]:
    chunks, clock, used = MemoryChunks(), ManualClock(), backend or EchoBackend()
    peaks = Peaks(folder / "peaks.json", "echo 1")
    shelf = ModelShelf(
        folder / "models",
        Content(chunks),
        lambda: ModelBehavior(used),
        clock=clock,
        rules=rules,
        memory=lambda: Memory({HOST: found.free}, {HOST: 1 << 40}),
        peaks=peaks,
    )
    found = Shelf(shelf, clock, peaks, used)
    for number in range(count):
        content = doubling_model(folder / "m.onnx", f"m{number}")
        model = model_pb2.Model(name=f"m{number}", version=1, digest=hashlib.sha256(content).hexdigest())
        model.artifact.CopyFrom(await upload_bytes(chunks, content))
        found.models.append(model)
    try:
        yield found
    finally:
        for actor in shelf.stop():
            assert await asyncio.to_thread(actor.join, 5)


async def test_a_model_in_use_stays_and_who_needs_its_room_waits(tmp_path: Path) -> None:
    """Until the lease ends: then the one goes and the other comes."""
    async with shelf_of(tmp_path, 2, Rules(models=1)) as found:
        place = await found.shelf.take(found[0])
        waiting = asyncio.create_task(found.shelf.take(found[1]))
        await asyncio.sleep(0.01)
        assert found.shelf.loaded == (found[0].digest,)
        found.shelf.give(place)
        assert (await waiting).digest == found[1].digest
        assert found.shelf.loaded == (found[1].digest,)


async def test_a_model_that_is_used_all_the_time_makes_room_after_its_turn(tmp_path: Path) -> None:
    """Its leases go on, new ones wait behind whoever waited before them."""
    async with shelf_of(tmp_path, 2, Rules(models=1, turn_ms=100)) as found:
        place = await found.shelf.take(found[0])
        waiting = asyncio.create_task(found.shelf.take(found[1]))
        await asyncio.sleep(0)
        again = found.shelf.held(found[0].digest)
        assert again is place
        found.clock.advance_ms(100)
        found.shelf.release("nothing")  # looks around
        assert found.shelf.held(found[0].digest) is None
        found.shelf.give(place)
        assert not waiting.done()
        found.shelf.give(place)
        assert (await waiting).digest == found[1].digest


async def test_who_waits_too_long_is_told_when_to_try_again(tmp_path: Path) -> None:
    """As RESOURCE_EXHAUSTED: the model in use is not interrupted."""
    async with shelf_of(tmp_path, 2, Rules(models=1, wait_ms=1000)) as found:
        place = await found.shelf.take(found[0])
        waiting = asyncio.create_task(found.shelf.take(found[1]))
        await asyncio.sleep(0)
        found.clock.advance_ms(1000)
        with pytest.raises(LimitExceededError, match="1 of the 1 models here are in use") as refusal:
            await waiting
        assert refusal.value.reason is Reason.NODE_FULL
        assert int(refusal.value.metadata["retry_ms"]) > 0
        found.shelf.give(place)


async def test_many_who_wait_for_one_model_load_it_once(tmp_path: Path) -> None:
    """And each has a lease of its own."""
    async with shelf_of(tmp_path, 1, Rules(models=1)) as found:
        places = await asyncio.gather(*(found.shelf.take(found[0]) for _ in range(5)))
        assert len(set(map(id, places))) == 1
        assert len(found.backend.opened) == 1
        assert [resident.users for resident in found.shelf.resident()] == [5]


async def test_who_gives_up_waiting_leaves_no_trace(tmp_path: Path) -> None:
    """Its model is not loaded any more, and its lease does not keep one that was."""
    async with shelf_of(tmp_path, 2, Rules(models=1)) as found:
        place = await found.shelf.take(found[0])
        waiting = asyncio.create_task(found.shelf.take(found[1]))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        found.shelf.give(place)
        assert [resident.users for resident in found.shelf.resident()] == [0]
        assert len(found.backend.opened) == 1


async def test_more_than_a_bound_do_not_wait(tmp_path: Path) -> None:
    """The line is short, and so is what waits for one model."""
    async with shelf_of(tmp_path, 3, Rules(models=1, line=1)) as found:
        place = await found.shelf.take(found[0])
        waiting = [asyncio.create_task(found.shelf.take(found[1])) for _ in range(MODEL_REQUESTS_WAITING)]
        await asyncio.sleep(0)
        for model in (found[1], found[2]):
            with pytest.raises(LimitExceededError, match="too many") as refusal:
                await found.shelf.take(model)
            assert refusal.value.reason is Reason.NODE_FULL
        found.shelf.give(place)
        for each in await asyncio.gather(*waiting):
            found.shelf.give(each)


def test_who_has_a_model_back_keeps_it_from_the_next_in_the_line() -> None:
    """A model was to go and may stay after all; those who waited for it have it before its room goes to others."""
    desk = Residency(Rules(models=1, wait_ms=1000, turn_ms=0))
    room = Memory({}, {})
    desk.ask("a", {HOST: 1}, 0)
    (first,) = desk.step(0, room).load
    desk.loaded(first, {HOST: 1}, 1, 0)
    desk.ask("b", {HOST: 1}, 0)
    assert desk.step(10, room).unload == ()
    assert not desk.lease(first)  # it makes room for b
    for digest in ("a", "c"):
        desk.ask(digest, {HOST: 1}, 500)
    desk.end(first, 1000)
    steps = desk.step(1000, room)  # b waited too long
    assert (steps.again, steps.unload) == ((first,), ())


async def test_an_unused_model_is_unloaded_in_time_and_a_pinned_one_is_not(tmp_path: Path) -> None:
    """After the idle time."""
    async with shelf_of(tmp_path, 2, Rules(idle_ms=60_000)) as found:
        found.shelf.keep(found[0], pinned=True)
        await found.use(1)
        await found.loaded(0, 1)
        found.clock.advance_ms(59_999)
        found.shelf.release("nothing")
        assert len(found.shelf.loaded) == 2
        found.clock.advance_ms(1)
        found.shelf.release("nothing")
        await found.loaded(0)


async def test_room_is_made_by_what_matters_least(tmp_path: Path) -> None:
    """Whatever was used last: the label `resident.priority` goes first."""
    async with shelf_of(tmp_path, 3, Rules(models=2)) as found:
        found[0].labels["resident.priority"] = "1"
        for index in (0, 1, 0, 1, 2):
            await found.use(index)
        await found.loaded(0, 2)


async def test_a_pinned_model_stays_until_it_is_released(tmp_path: Path) -> None:
    """Another one that would need its room is refused, with what could be done."""
    async with shelf_of(tmp_path, 2, Rules(models=1)) as found:
        found.shelf.keep(found[0], pinned=True)
        await found.loaded(0)
        with pytest.raises(LimitExceededError, match="1 are pinned") as refusal:
            await found.use(1)
        assert refusal.value.reason is Reason.OUT_OF_MEMORY
        found.shelf.release(found[0].digest)
        await found.use(1)
        await found.loaded(1)


async def test_a_pinned_model_that_could_not_be_loaded_is_tried_again(tmp_path: Path) -> None:
    """With the next look at the room; one that is merely to be loaded is loaded once."""
    async with shelf_of(tmp_path, 2, Rules(models=1)) as found:
        found.shelf.keep(found[0], pinned=False)
        await found.loaded(0)
        found.shelf.keep(found[1], pinned=True)
        await found.loaded(1)
        assert [resident.pinned for resident in found.shelf.resident()] == [True]


async def test_memory_that_others_took_is_not_given_to_models(tmp_path: Path) -> None:
    """What is measured as free decides, after a while of patience; the refusal says how much there is."""
    async with shelf_of(tmp_path, 2, Rules(memory_ms=100)) as found:
        found.free = 1000
        waiting = asyncio.create_task(found.use(0))
        await asyncio.sleep(0)
        found.clock.advance_ms(100)
        with pytest.raises(LimitExceededError, match="does not fit") as refusal:
            await waiting
        assert refusal.value.metadata["free_bytes"] == "1000"
        found.free = 1 << 40
        await found.use(0)


async def test_models_nobody_uses_go_when_others_need_the_memory(tmp_path: Path) -> None:
    """Less is free than has to be: the one unused for longest goes; one in use stays."""
    async with shelf_of(tmp_path, 2, Rules()) as found:
        await found.use(0)
        place = await found.shelf.take(found[1])
        found.free = -1
        found.shelf.release("nothing")
        await found.loaded(1)
        found.shelf.give(place)


class Unloadable(EchoBackend):
    """A runtime that refuses a file once."""

    def open(self, path: Path) -> EchoSession:
        session = super().open(path)
        if len(self.opened) == 1:
            raise DataRefusedError("no", reason=Reason.MODEL_INVALID)
        return session


async def test_a_model_that_does_not_load_frees_its_room(tmp_path: Path) -> None:
    """Whoever waited is told why; the next one in the line comes in."""
    async with shelf_of(tmp_path, 2, Rules(models=1), Unloadable()) as found:
        failed, place = await asyncio.gather(
            found.shelf.take(found[0]), found.shelf.take(found[1]), return_exceptions=True
        )
        assert isinstance(failed, DataRefusedError)
        assert isinstance(place, Place)
        assert found.shelf.loaded == (found[1].digest,)


async def test_what_was_measured_is_known_after_a_restart(tmp_path: Path) -> None:
    """By digest, runtime and batch; another runtime knows nothing of it, and a damaged file costs only that."""
    async with shelf_of(tmp_path, 1, Rules()) as found:
        digest = found[0].digest
        estimate = found.shelf.expected_bytes(found[0])
        found.peaks.note(digest, {0: 700, 8: 500})
        await found.shelf.save()
        again = Peaks(tmp_path / "peaks.json", "echo 1")
        assert again.measured(digest) == {0: 700, 8: 500}
        assert (again.expected_bytes(digest, 1), again.steady_bytes(digest, 1)) == (700, 500)
        assert Peaks(tmp_path / "peaks.json", "echo 2").expected_bytes(digest, 1000) >= 2000
        assert estimate > 2 * found[0].artifact.size_bytes
    (tmp_path / "peaks.json").write_bytes(b'{"peaks": {"' + digest.encode() + b' echo 1": {"8": -1}}}')
    assert Peaks(tmp_path / "peaks.json", "echo 1").measured(digest) == {}


def test_a_disturbed_measurement_is_forgotten_in_time() -> None:
    """A larger one counts at once, smaller ones bring it down step by step."""
    peaks = Peaks()
    digest = "0" * 64
    peaks.note(digest, {0: 1000})
    peaks.note(digest, {0: 5000})
    assert peaks.expected_bytes(digest, 1) == 5000
    for _ in range(40):
        peaks.note(digest, {0: 1000})
    assert peaks.expected_bytes(digest, 1) == 1000

"""What a node does with orders to keep models loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from actors.backends.echo import EchoSession
from actors.footprint import Footprint
from actors.model import OpenModel
from hivefold.errors import HivefoldError, LimitExceededError, NotFoundError, Reason, UnavailableError
from hivefold.v1 import error_pb2, model_pb2, work_pb2
from node import keeper as keeping
from node.keeper import Keeper
from node.models import ModelActor, Place
from node.residency.files import Transfer
from node.residency.policy import Resident


class FakeShelf:
    """A shelf that loads at once, or fails as it is told."""

    def __init__(self) -> None:
        self.loaded: set[str] = set()
        self.pinned: dict[str, bool] = {}
        self.failing: dict[str, HivefoldError] = {}
        self.fetching: dict[str, Transfer] = {}
        self.takes = 0

    def has(self, digest: str) -> bool:
        return digest in self.loaded

    async def take(self, model: model_pb2.Model) -> Place:
        self.takes += 1
        if model.digest in self.failing:
            raise self.failing[model.digest]
        self.loaded.add(model.digest)
        resident = Resident(model.digest, {}, 2, pinned=False, asked_ms=0)
        nobody = cast(ModelActor, None)  # who keeps it is none of the keeper's business
        return Place(model.digest, resident, nobody, OpenModel(EchoSession([])), Footprint())

    def give(self, place: Place) -> None:
        assert place.digest in self.loaded

    def keep(self, model: model_pb2.Model, *, pinned: bool) -> None:
        self.pinned[model.digest] = pinned

    def release(self, digest: str) -> None:
        self.loaded.discard(digest)
        self.pinned.pop(digest, None)


async def registered(name: str, version: str) -> model_pb2.Model:
    if name == "gone":
        raise NotFoundError("none", reason=Reason.MODEL_NOT_FOUND)
    return model_pb2.Model(name=name, version=int(version), digest=name[0] * 64)


def order(sequence: int, *models: str, term: int = 1, boot: str = "b1", pinned: bool = False) -> bytes:
    message = work_pb2.KeepModels(term=term, boot_id=boot, sequence=sequence)
    for model in models:
        message.models.add(model=model, digest=model[0] * 64, pinned=pinned)
    return message.SerializeToString()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "KEEP_LOOK_S", 0.001)
    monkeypatch.setattr(keeping, "KEEP_RETRY_S", 0.001)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_what_is_ordered_is_loaded_and_what_is_not_goes() -> None:
    """The last order counts as a whole; one for another boot or from before is passed over."""
    shelf = FakeShelf()
    keeper = Keeper("b1", shelf, registered)
    keeper.order(order(5, "a@1", "b@1"))
    await until(lambda: len(shelf.loaded) == 2)
    keeper.order(order(9, "a@1", boot="b0"))
    keeper.order(order(4, "c@1"))
    keeper.order(order(7, "b@1", pinned=True))
    await until(lambda: shelf.pinned.get("b" * 64) is True)

    assert shelf.loaded == {"b" * 64}
    assert keeper.sequence == 7
    assert keeper.progress() == []
    keeper.stop()


async def test_what_was_evicted_is_loaded_again() -> None:
    """As long as it is ordered."""
    shelf = FakeShelf()
    keeper = Keeper("b1", shelf, registered)
    keeper.order(order(5, "a@1"))
    await until(lambda: shelf.has("a" * 64))
    shelf.loaded.clear()
    await until(lambda: shelf.has("a" * 64))
    keeper.stop()


async def test_what_cannot_be_loaded_is_said_and_tried_again() -> None:
    """Until it works: room may come free."""
    shelf = FakeShelf()
    shelf.failing["a" * 64] = LimitExceededError("no room", reason=Reason.OUT_OF_MEMORY)
    keeper = Keeper("b1", shelf, registered)
    keeper.order(order(5, "a@1"))
    await until(lambda: any(entry.HasField("failure") for entry in keeper.progress()))
    (said,) = keeper.progress()
    shelf.failing.clear()
    await until(lambda: keeper.progress() == [])

    assert said.failure.reason == error_pb2.REASON_OUT_OF_MEMORY
    keeper.stop()


@pytest.mark.parametrize("model", ["a@1", "gone@1"])
async def test_what_may_pass_is_no_failure(model: str) -> None:
    """The broker is away, or the registry does not know the version yet: the node goes on trying."""
    shelf = FakeShelf()
    shelf.failing["a" * 64] = UnavailableError("away")
    keeper = Keeper("b1", shelf, registered)
    keeper.order(order(5, model))
    await until(lambda: shelf.takes > 1 or model == "gone@1")

    assert not any(entry.HasField("failure") for entry in keeper.progress())
    keeper.stop()


async def test_a_fetch_is_told_with_its_bytes() -> None:
    """Whoever asked for it."""
    shelf = FakeShelf()
    shelf.fetching["f" * 64] = Transfer(3, 10)
    (told,) = Keeper("b1", shelf, registered).progress()

    assert (told.digest, told.bytes_done, told.bytes_total) == ("f" * 64, 3, 10)

"""What a node knows of the registry, under a clock that moves only when told to."""

from __future__ import annotations

import asyncio

import pytest

from hivefold.clock import ManualClock
from hivefold.errors import InvalidRequestError, NotFoundError, UnavailableError
from hivefold.oip.limits import CATALOGUE_FRESH_MS
from hivefold.v1 import model_pb2
from node.serving.catalogue import Catalogue


class Registered:
    """A registry of one name."""

    def __init__(self) -> None:
        self.latest = 1
        self.asked: list[str] = []
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, reference: str) -> model_pb2.Model:
        self.asked.append(reference)
        await asyncio.sleep(0)
        if self.away:
            raise UnavailableError("away")
        await self.gate.wait()
        name, _, version = reference.partition("@")
        version = str(self.latest) if version == "prod" else version
        if name != "digits" or int(version or 1) > self.latest:
            raise NotFoundError("none")
        return model_pb2.Model(name=name, version=int(version or self.latest))

    async def versions(self, name: str = "") -> list[model_pb2.Model]:
        return [model_pb2.Model(name="digits", version=version) for version in range(1, self.latest + 1)]


def catalogue() -> tuple[Catalogue, Registered, ManualClock]:
    registry, clock = Registered(), ManualClock()
    return Catalogue(registry, clock), registry, clock


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_model_is_asked_for_once() -> None:
    """By many at a time, and again."""
    found, registry, _ = catalogue()
    models = await asyncio.gather(*(found.find("digits", "") for _ in range(5)))
    assert {model.version for model in models} == {1}
    assert found.known("digits", "") is models[0]
    assert registry.asked == ["digits"]


async def test_the_latest_version_follows_the_registry() -> None:
    """An answer that is not fresh is given once more, and asked for meanwhile."""
    found, registry, clock = catalogue()
    await found.find("digits", "")
    registry.latest = 2
    clock.advance_ms(CATALOGUE_FRESH_MS + 1)
    assert (await found.find("digits", "")).version == 1
    await settle()
    assert (await found.find("digits", "")).version == 2
    assert registry.asked == ["digits", "digits"]


async def test_while_the_registry_is_away_what_was_known_is_known() -> None:
    """The data plane needs no coordinator; what was not known cannot be told."""
    found, registry, clock = catalogue()
    await found.find("digits", "1")
    registry.away = True
    for _ in range(3):
        clock.advance_ms(CATALOGUE_FRESH_MS + 1)
        assert (await found.find("digits", "1")).version == 1
        await settle()
    with pytest.raises(UnavailableError):
        await found.find("other", "")


async def test_what_is_not_there_is_not_asked_for_again_at_once() -> None:
    """Whoever asks for nonsense costs the registry one question a second; a model registered then is found."""
    found, registry, clock = catalogue()
    for _ in range(5):
        with pytest.raises(NotFoundError):
            await found.find("digits", "2")
    assert registry.asked == ["digits@2"]
    registry.latest = 2
    clock.advance_ms(CATALOGUE_FRESH_MS + 1)
    assert (await found.find("digits", "2")).version == 2


@pytest.mark.parametrize(
    ("name", "version", "error"),
    [
        ("digits", "V1", InvalidRequestError),
        ("digits@1", "1", InvalidRequestError),
        ("Digits", "", NotFoundError),
        ("digits", "0", NotFoundError),
    ],
)
async def test_what_is_no_name_is_refused_without_asking(name: str, version: str, error: type[Exception]) -> None:
    """The registry hears of well-formed names only."""
    found, registry, _ = catalogue()
    with pytest.raises(error):
        await found.find(name, version)
    assert registry.asked == []


async def test_a_version_may_be_part_of_the_name() -> None:
    """As everywhere else in hivefold."""
    found, _, _ = catalogue()
    assert (await found.find("digits@1", "")).version == 1


async def test_a_moved_alias_is_known_at_once() -> None:
    """After the change nobody is told what it stood for before, not even by an answer that was on its way."""
    found, registry, clock = catalogue()
    assert (await found.find("digits", "prod")).version == 1
    clock.advance_ms(CATALOGUE_FRESH_MS + 1)
    registry.gate.clear()
    assert found.known("digits", "prod") is not None, "asked for again behind the scenes"
    registry.latest = 2
    found.outdate(10)
    waiting = asyncio.create_task(found.find("digits", "prod"))
    await settle()
    assert found.known("digits", "prod") is None
    registry.gate.set()
    assert (await waiting).version == 2
    known = found.known("digits", "prod")
    assert known is not None
    assert known.version == 2


async def test_a_moved_alias_stands_for_what_is_known_while_the_registry_is_away() -> None:
    """Serving goes on with the version that was known."""
    found, registry, _ = catalogue()
    await found.find("digits", "prod")
    registry.latest, registry.away = 2, True
    found.outdate(10)

    assert (await found.find("digits", "prod")).version == 1
    assert found.known("digits", "prod") is not None

"""Between the loop and the actors' threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from actors.bridge import AskTimeoutError, Outlet, ask
from actors.runtime import ActorRef, ActorStoppedError, spawn
from hivefold.errors import DataRefusedError, Reason

WAIT_S = 10.0


class Door:
    """Answers once its door is open."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()

    def start(self) -> None: ...

    def receive(self, message: int) -> int:
        assert self.open.wait(WAIT_S)
        if message < 0:
            raise DataRefusedError("negative", reason=Reason.DATA_INVALID)
        return message + 1

    def stop(self) -> None: ...


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def ref(door: Door) -> ActorRef[int, int]:
    return spawn(lambda: door, name="door")


async def test_an_answer_comes_back_to_the_loop(ref: ActorRef[int, int]) -> None:
    """Also many at once, each to its own asker."""
    assert await asyncio.gather(*(ask(ref, number, deadline_ms=10_000) for number in range(50))) == list(range(1, 51))
    ref.stop()


async def test_a_refusal_is_raised_at_the_asker(ref: ActorRef[int, int]) -> None:
    """As the behaviour raised it."""
    with pytest.raises(DataRefusedError, match="negative"):
        await ask(ref, -1, deadline_ms=10_000)
    ref.stop()


async def test_the_loop_goes_on_while_an_actor_works(ref: ActorRef[int, int], door: Door) -> None:
    """The door is opened by the loop itself, which it could not do if the ask blocked it."""
    door.open.clear()
    asking = asyncio.create_task(ask(ref, 1, deadline_ms=10_000))
    await asyncio.sleep(0)
    door.open.set()
    assert await asking == 2
    ref.stop()


async def test_a_late_answer_is_dropped(ref: ActorRef[int, int], door: Door) -> None:
    """The asker is told in time; the actor finishes and serves the next one."""
    door.open.clear()
    with pytest.raises(AskTimeoutError):
        await ask(ref, 1, deadline_ms=1)
    door.open.set()
    assert await ask(ref, 2, deadline_ms=10_000) == 3
    ref.stop()


async def test_asking_an_ended_actor_is_an_error_and_no_wait(ref: ActorRef[int, int]) -> None:
    """ActorStoppedError."""
    ref.stop()
    assert await asyncio.to_thread(ref.join, WAIT_S)
    with pytest.raises(ActorStoppedError):
        await ask(ref, 1, deadline_ms=10_000)


async def test_an_outlet_hands_messages_over_in_order() -> None:
    """From another thread."""
    outlet: Outlet[int] = Outlet(10)

    def tell() -> None:
        for number in range(5):
            outlet.tell(number)

    thread = threading.Thread(target=tell)
    thread.start()
    assert [await outlet.next() for _ in range(5)] == [0, 1, 2, 3, 4]
    thread.join()


async def test_a_full_outlet_drops_the_oldest_and_counts_it() -> None:
    """The latest reading is the one that matters."""
    outlet: Outlet[int] = Outlet(2)
    for number in range(5):
        outlet.tell(number)
    assert [await outlet.next(), await outlet.next()] == [3, 4]
    assert outlet.dropped == 3

"""A node's inference over fakes: batches, refusals, deadlines, and where a request goes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.backends.echo import EchoBackend, EchoSession
from actors.tensors import Array
from hivefold.errors import (
    DataRefusedError,
    HivefoldError,
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
    Reason,
    UnavailableError,
)
from hivefold.oip.limits import QUICK_RUNS
from hivefold.oip.requests import InferRequest, write_request
from hivefold.oip.tensors import WireTensor, from_array, to_array
from node.residency.policy import Rules
from tests.fixtures.serving import Serving, serving

ROW = np.arange(4, dtype="<f4").reshape(1, 4)


def rows(count: int, start: int = 0) -> WireTensor:
    return from_array("x", np.arange(4 * start, 4 * (start + count), dtype="<f4").reshape(count, 4))


class Gated(EchoBackend):
    """The echo model, which computes only while its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.entered = threading.Event()

    def open(self, path: Path) -> GatedSession:
        self.opened.append(path)
        return GatedSession(self)


class GatedSession(EchoSession):
    def __init__(self, backend: Gated) -> None:
        super().__init__(backend.batches)
        self.backend = backend

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        self.backend.entered.set()
        assert self.backend.gate.wait(10)
        return super().run(outputs, feeds)


async def entered(backend: Gated) -> None:
    assert await asyncio.to_thread(backend.entered.wait, 10)


async def test_a_request_is_answered_by_the_latest_version(tmp_path: Path) -> None:
    """All outputs, or those that were asked for."""
    async with serving(tmp_path) as node:
        echo, total = await node.infer(rows(2))
        np.testing.assert_array_equal(to_array(echo), np.arange(8).reshape(2, 4))
        assert (total.name, total.shape) == ("total", (2,))
        assert [output.name for output in await node.infer(rows(2), outputs=("total",))] == ["total"]


async def test_requests_that_wait_share_a_batch_and_each_gets_its_own(tmp_path: Path) -> None:
    """What came while the model was busy goes out at once when it is free, in one batch where there is one lane."""
    backend = Gated()
    async with serving(tmp_path, backend=backend, lanes=1) as node:
        first = asyncio.create_task(node.infer(rows(1)))
        await entered(backend)
        others = [asyncio.create_task(node.infer(rows(index % 3 + 1, index))) for index in range(9)]
        while node.inference.served(node.model).in_hand < 9:
            await asyncio.sleep(0)
        backend.gate.set()
        await first
        for index, task in enumerate(others):
            echo, _ = await task
            assert bytes(echo.data) == bytes(rows(index % 3 + 1, index).data)
        assert backend.batches[:2] == [1, 18]
        tally = node.inference.served(node.model).tally
        assert (tally.success.count, tally.rows, tally.by_rows[18].infer.count) == (10, 19, 1)


async def test_a_label_of_the_model_limits_its_batches(tmp_path: Path) -> None:
    """One that makes no sense is passed over."""
    backend = Gated()
    labels = {"batch.max_rows": "2", "batch.max_delay_us": "soon"}
    async with serving(tmp_path, backend=backend, labels=labels) as node:
        tasks = [asyncio.create_task(node.infer(rows(1)))]
        await entered(backend)
        tasks += [asyncio.create_task(node.infer(rows(1, index))) for index in range(4)]
        while node.inference.served(node.model).in_hand < 4:
            await asyncio.sleep(0)
        backend.gate.set()
        await asyncio.gather(*tasks)
        assert max(backend.batches) == 2


async def test_a_full_queue_refuses_with_a_hint(tmp_path: Path) -> None:
    """RESOURCE_EXHAUSTED to clients, and when to try again; who is in the queue is served."""
    backend = Gated()
    async with serving(tmp_path, backend=backend, labels={"batch.queue": "1"}) as node:
        first = asyncio.create_task(node.infer(rows(1)))
        await entered(backend)
        second = asyncio.create_task(node.infer(rows(1)))
        while not node.inference.served(node.model).in_hand:
            await asyncio.sleep(0)
        with pytest.raises(LimitExceededError) as refusal:
            await node.infer(rows(1))
        assert refusal.value.reason is Reason.SERVER_BUSY
        assert int(refusal.value.metadata["retry_ms"]) > 0
        backend.gate.set()
        await asyncio.gather(first, second)


async def test_an_expired_or_abandoned_request_costs_nothing(tmp_path: Path) -> None:
    """Its rows never reach the model."""
    backend = Gated()
    async with serving(tmp_path, backend=backend) as node:
        first = asyncio.create_task(node.infer(rows(1)))
        await entered(backend)
        late = asyncio.create_task(node.infer(rows(7), timeout_us=1))
        left = asyncio.create_task(node.infer(rows(9)))
        while node.inference.served(node.model).in_hand < 2:
            await asyncio.sleep(0)
        left.cancel()
        await asyncio.sleep(0)
        backend.gate.set()
        with pytest.raises(UnavailableError) as over:
            await late
        assert over.value.reason is Reason.DEADLINE_EXCEEDED
        await first
        await node.infer(rows(1))
        assert backend.batches == [1, 1]
        assert node.inference.in_hand == 0


@pytest.mark.parametrize(
    ("inputs", "more", "error"),
    [
        ((from_array("x", ROW.astype("<f8")),), {}, DataRefusedError),
        ((from_array("x", ROW.reshape(2, 2)),), {}, DataRefusedError),
        ((from_array("z", ROW),), {}, DataRefusedError),
        ((), {}, DataRefusedError),
        ((WireTensor("x", "FP32", (1, 4), b"short"),), {}, InvalidRequestError),
        ((from_array("x", ROW),), {"outputs": ("nothing",)}, DataRefusedError),
        ((from_array("x", ROW),), {"model_name": "other"}, NotFoundError),
        ((from_array("x", ROW),), {"model_version": "2"}, NotFoundError),
    ],
)
async def test_what_does_not_fit_never_reaches_the_runtime(
    tmp_path: Path, inputs: tuple[WireTensor, ...], more: dict[str, Any], error: type[HivefoldError]
) -> None:
    """It fails alone, with what is wrong."""
    backend = EchoBackend()
    async with serving(tmp_path, backend=backend) as node:
        with pytest.raises(error):
            await node.infer(*inputs, **more)
        assert backend.batches == []


async def test_a_request_goes_to_the_node_that_has_the_model(tmp_path: Path) -> None:
    """As it came, and the answer as it comes; nothing is loaded here."""
    async with serving(tmp_path) as node:
        node.hear("node-b", digest=node.model.digest)
        node.others.answers["node-b:1"] = b"the answer"
        data = write_request(InferRequest("echo", "", "", (rows(1),), ())).SerializeToString()
        assert await node.raw(data) == b"the answer"
        assert node.inference.shelf.loaded == ()


async def test_a_request_that_was_passed_on_is_not_passed_on_again(tmp_path: Path) -> None:
    """One hop at most: it is served here, whoever else has the model."""
    async with serving(tmp_path) as node:
        node.hear("node-b", digest=node.model.digest)
        await node.infer(rows(1), forwarded=True)
        assert node.others.asked == []


@pytest.mark.parametrize("reason", [Reason.SERVER_UNAVAILABLE, Reason.SERVER_BUSY])
async def test_when_the_others_cannot_the_model_is_loaded_here(tmp_path: Path, reason: Reason) -> None:
    """Each is asked once."""
    async with serving(tmp_path) as node:
        for other in ("node-b", "node-c"):
            node.hear(other, digest=node.model.digest)
            node.others.answers[f"{other}:1"] = HivefoldError("no", reason=reason)
        assert await node.infer(rows(1))
        assert sorted(node.others.asked) == ["node-b:1", "node-c:1"]


async def test_another_nodes_refusal_is_the_answer(tmp_path: Path) -> None:
    """What is wrong with the request is wrong everywhere."""
    async with serving(tmp_path) as node:
        node.hear("node-b", digest=node.model.digest)
        node.others.answers["node-b:1"] = DataRefusedError("no", reason=Reason.SHAPE_MISMATCH)
        with pytest.raises(DataRefusedError):
            await node.infer(rows(1))


async def test_a_model_that_does_not_fit_here_is_loaded_where_it_does(tmp_path: Path) -> None:
    """By the memory that the others said they have."""
    async with serving(tmp_path, free_bytes=1) as node:
        node.hear("node-b", memory=1)
        node.hear("node-c", memory=1 << 40)
        node.others.answers["node-c:1"] = b"the answer"
        data = write_request(InferRequest("echo", "", "", (rows(1),), ())).SerializeToString()
        assert await node.raw(data) == b"the answer"


@asynccontextmanager
async def full_of_pinned(folder: Path) -> AsyncIterator[Serving]:
    """A node whose only place a pinned model has, beside one with all the room."""
    async with serving(folder, rules=Rules(models=1)) as node:
        other = await node.add("other")
        node.inference.shelf.keep(other, pinned=True)
        while other.digest not in node.inference.shelf.loaded:
            await asyncio.sleep(0)
        node.hear("node-b", memory=1 << 40)
        yield node


async def test_a_model_that_is_not_let_in_here_is_loaded_where_there_is_room(tmp_path: Path) -> None:
    """Memory is not all: as many models as may be are pinned. The request counts where it is answered."""
    async with full_of_pinned(tmp_path) as node:
        node.others.answers["node-b:1"] = b"the answer"
        data = write_request(InferRequest("echo", "", "", (rows(1),), ())).SerializeToString()
        assert await node.raw(data) == b"the answer"
        assert node.inference.statistics.of("echo", 1).fail.count == 0


@pytest.mark.parametrize("forwarded", [False, True])
async def test_a_model_that_nobody_lets_in_is_refused_as_it_is_here(tmp_path: Path, *, forwarded: bool) -> None:
    """Each of the others is asked once, and none about a request that came from one of them."""
    async with full_of_pinned(tmp_path) as node:
        node.others.answers["node-b:1"] = LimitExceededError("no", reason=Reason.OUT_OF_MEMORY)
        with pytest.raises(LimitExceededError, match="1 are pinned"):
            await node.infer(rows(1), forwarded=forwarded)
        assert node.others.asked == ([] if forwarded else ["node-b:1"])
        assert node.inference.statistics.of("echo", 1).fail.count == 1


async def test_a_released_model_is_loaded_again_by_the_next_request(tmp_path: Path) -> None:
    """Its memory is free meanwhile; a request that runs keeps it until it is answered."""
    backend = Gated()
    async with serving(tmp_path, backend=backend) as node:
        running = asyncio.create_task(node.infer(rows(1)))
        await entered(backend)
        node.inference.shelf.release(node.model.digest)
        assert not node.inference.shelf.has(node.model.digest)
        backend.gate.set()
        await running
        await node.infer(rows(1))
        assert len(backend.opened) == 2


async def test_the_model_that_was_asked_for_last_stays(tmp_path: Path) -> None:
    """Room for another is made by the one that nobody asked for the longest."""
    async with serving(tmp_path, rules=Rules(models=2)) as node:
        others = [await node.add(name) for name in ("second", "third")]
        for name in ("echo", "second", "echo", "third"):
            await node.infer(rows(1), model_name=name)
        assert [node.inference.shelf.has(model.digest) for model in (node.model, *others)] == [True, False, True]


class Threads(EchoBackend):
    """The echo model, which notes the threads that ran it."""

    def __init__(self) -> None:
        super().__init__()
        self.ran_in: list[str] = []
        self.broken = False

    def open(self, path: Path) -> ThreadsSession:
        return ThreadsSession(self)


class ThreadsSession(EchoSession):
    def __init__(self, backend: Threads) -> None:
        super().__init__(backend.batches)
        self.backend = backend

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        self.backend.ran_in.append(threading.current_thread().name)
        if self.backend.broken:
            raise ZeroDivisionError("broken")
        return super().run(outputs, feeds)


async def test_a_quick_model_answers_on_the_loop_once_it_was_measured(tmp_path: Path) -> None:
    """The first requests go to the actor; those that follow, alone or together, do not, and are answered the same."""
    backend = Threads()
    async with serving(tmp_path, backend=backend) as node:
        for number in range(QUICK_RUNS):
            await node.infer(rows(1, number))
        assert threading.current_thread().name not in backend.ran_in
        backend.ran_in.clear()
        for number in range(3):
            (echo, total) = await node.infer(rows(1, number))
            assert (to_array(echo) == to_array(rows(1, number))).all()
            assert to_array(total) == to_array(rows(1, number)).sum()
        assert set(backend.ran_in) == {threading.current_thread().name}


async def test_requests_that_come_together_are_answered_each_with_its_own(tmp_path: Path) -> None:
    """On the loop too."""
    backend = Threads()
    async with serving(tmp_path, backend=backend) as node:
        for _ in range(4 * QUICK_RUNS):
            answers = await asyncio.gather(*[node.infer(rows(1, number)) for number in range(8)])
            for number, (echo, _) in enumerate(answers):
                assert (to_array(echo) == to_array(rows(1, number))).all()
        assert threading.current_thread().name in backend.ran_in


@pytest.mark.parametrize("together", [1, 8])
async def test_a_runtime_that_breaks_on_the_loop_has_its_model_back_in_the_actor(tmp_path: Path, together: int) -> None:
    """Those whom it concerns are told; the next are answered."""
    backend = Threads()
    async with serving(tmp_path, backend=backend) as node:
        for _ in range(4 * QUICK_RUNS):
            await asyncio.gather(*[node.infer(rows(1)) for _ in range(together)])
        backend.broken = True
        backend.ran_in.clear()
        told = await asyncio.gather(*[node.infer(rows(1)) for _ in range(together)], return_exceptions=True)
        assert {type(error) for error in told} == {HivefoldError}
        assert threading.current_thread().name in backend.ran_in
        backend.broken = False
        backend.ran_in.clear()
        await node.infer(rows(1))
        assert threading.current_thread().name not in backend.ran_in

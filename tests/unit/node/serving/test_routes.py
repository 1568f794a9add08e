"""Requests like one before take the short way, and only while that leads where the long one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hivefold.errors import NotFoundError
from hivefold.oip.limits import STATISTICS_MODELS
from hivefold.oip.repeated import Head, Repeated
from hivefold.oip.requests import InferRequest, write_request
from hivefold.oip.responses import read_response
from hivefold.oip.schema import ModelInferResponse
from hivefold.oip.tensors import from_array, to_array
from node.servicers.inference import InferenceServicer
from tests.fixtures.serving import serving


class Call:
    """A call's context."""

    def time_remaining(self) -> float:
        return 5.0

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()


def message(number: float, model: str = "echo") -> bytes:
    tensor = from_array("x", np.full((1, 4), number, "<f4"))
    data: bytes = write_request(InferRequest(model, "", "", (tensor,), ("echo",))).SerializeToString()
    return data


async def ask(servicer: InferenceServicer, data: bytes) -> list[float]:
    answer = await servicer.model_infer(data, Call())
    (echo,) = read_response(ModelInferResponse.FromString(answer))
    found: list[float] = to_array(echo)[0].tolist()
    return found


def head_of(data: bytes) -> Head:
    reader = Repeated()
    reader.address(data)
    head = reader.head(data)
    assert head is not None
    return head


async def test_each_request_is_answered_with_its_own_bytes(tmp_path: Path) -> None:
    """And counted, however it came."""
    async with serving(tmp_path) as node:
        servicer = InferenceServicer(node.inference, lambda: True)
        for number in range(20):
            assert await ask(servicer, message(number)) == [number] * 4
        tally = node.inference.served(node.model).tally
        assert (tally.success.count, tally.rows, node.inference.in_hand) == (20, 20, 0)


async def test_a_name_that_stands_for_another_model_leads_there(tmp_path: Path) -> None:
    """From the next look at the registry on; a model that is gone from it is refused."""
    async with serving(tmp_path) as node:
        servicer = InferenceServicer(node.inference, lambda: True)
        for number in range(3):
            await ask(servicer, message(number))
        node.models.known["echo"] = await node.add("second")
        node.inference.catalogue.outdate(1)
        assert await ask(servicer, message(7)) == [7] * 4
        assert node.inference.statistics.of("second", 1).success.count == 1
        del node.models.known["echo"]
        node.inference.catalogue.outdate(2)
        with pytest.raises(NotFoundError):
            await ask(servicer, message(8))


async def test_only_a_model_that_is_loaded_here_has_a_route(tmp_path: Path) -> None:
    """Else the request may belong to another node."""
    async with serving(tmp_path) as node:
        head = head_of(message(1))
        assert node.inference.route(head) is None
        await node.raw(message(1))
        assert node.inference.route(head) is not None
        node.inference.shelf.release(node.model.digest)
        assert node.inference.route(head) is None


async def test_what_does_not_fit_the_model_has_no_route(tmp_path: Path) -> None:
    """The long way says why."""
    async with serving(tmp_path) as node:
        await node.raw(message(1))
        wrong: Any = from_array("z", np.zeros((1, 4), "<f4"))
        head = head_of(write_request(InferRequest("echo", "", "", (wrong,), ())).SerializeToString())
        assert node.inference.route(head) is None


async def test_a_route_counts_the_bytes_of_each_request(tmp_path: Path) -> None:
    """Bounds of batches and queues are in bytes."""
    async with serving(tmp_path) as node:
        await node.raw(message(1))
        head = head_of(message(1))
        route = node.inference.route(head)
        assert route is not None
        assert route.like.with_bytes(head.with_bytes(message(2)).inputs[0].data).size_bytes == 16


async def test_a_model_that_made_room_for_others_is_found_again(tmp_path: Path) -> None:
    """Requests do not go on counting where nobody looks."""
    async with serving(tmp_path) as node:
        await node.raw(message(1))
        head = head_of(message(1))
        first = node.inference.route(head)
        for number in range(STATISTICS_MODELS):
            other = type(node.model)()
            other.CopyFrom(node.model)
            other.name = f"other-{number}"
            node.inference.served(other)
        again = node.inference.route(head)
        assert first is not None
        assert again is not None
        assert again.served is node.inference.served(node.model) is not first.served

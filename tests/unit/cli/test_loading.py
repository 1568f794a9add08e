"""Waiting for a model at the command line."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from cli.loading import wait_for
from hivefold.client import Loading
from hivefold.v1 import model_service_pb2 as pb
from hivefold.v1.event_pb2 import NodeRefusal

ASKED = pb.Residency(
    model="m@1", replica_count=2, node_ids=["n1"], refusals=[NodeRefusal(node_id="n2", detail="is draining")]
)


class _Endless:
    """Models that one node loads, and that no other node may have."""

    def __init__(self) -> None:
        self.told = asyncio.Event()

    async def wait_loaded(self, asked: pb.Residency, *, timeout_s: float, on_progress: Any) -> pb.Residency:
        for _ in range(2):
            on_progress(Loading(asked, {"n1": "loads it", "n2": "is draining"}))
        self.told.set()
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("notes", [True, False])
async def test_who_stops_waiting_is_told_that_the_model_stays_wanted(
    notes: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends the waiting alone; why nodes are missing is told once, to people only, on standard error."""
    models = _Endless()
    fleet: Any = SimpleNamespace(models=models)
    waiting = asyncio.create_task(wait_for(fleet, ASKED, 60.0, notes=notes))
    await models.told.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    short = "1 of 2 replicas have no node yet (n1: loads it; n2: is draining); waiting\n"
    stays = "m@1 stays wanted; see how far it is with: hivefold model ps m@1\n"
    assert capsys.readouterr() == ("", (short if notes else "") + stays)

"""Waiting for a model to be loaded, on virtual time, over a coordinator that answers as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import pytest

from hivefold import limits
from hivefold.client import Loading
from hivefold.client.models import Models
from hivefold.errors import ConflictError, InvalidRequestError, NotFoundError, Reason, UnavailableError
from hivefold.v1 import error_pb2, event_pb2, model_pb2
from hivefold.v1 import model_service_pb2 as pb
from tests.unit.coordinator.fleet import on_virtual_time

FETCHING: Final = pb.Replica(node_id="n2", state=pb.REPLICA_STATE_FETCHING, kept=True, bytes_done=40, bytes_total=100)
FAILED: Final = pb.Replica(
    node_id="n3",
    state=pb.REPLICA_STATE_FAILED,
    failure=error_pb2.Failure(reason=error_pb2.REASON_OUT_OF_MEMORY, message="too large"),
)
REFUSED: Final = event_pb2.NodeRefusal(node_id="n4", detail="needs label zone=a, does not carry it")


def kept(
    loaded: int, wanted: int = 2, *, at: int = 7, refusals: tuple[event_pb2.NodeRefusal, ...] = ()
) -> pb.Residency:
    """A wish of the time `at`, with two nodes chosen."""
    made = pb.Residency(
        model="m@1", replica_count=wanted, loaded_count=loaded, node_ids=["n1", "n2"][:wanted], refusals=refusals
    )
    made.set_time.seconds = at
    return made


class Coordinator:
    """Answers every look with what `tell` says of the seconds since the first; None is a coordinator that is away."""

    def __init__(self, tell: Callable[[float], pb.Residency | Exception | None]) -> None:
        self.tell = tell
        self.latest = 1
        self.replicas = [pb.Replica(node_id="n1", state=pb.REPLICA_STATE_LOADED, kept=True), FETCHING]
        self.looked_s: list[float] = []
        self.asked: set[str] = set()
        self._began_s = asyncio.get_running_loop().time()

    async def call(self, _kind: Any, method: str, request: Any) -> Any:
        self.asked.add(request.model)
        if method == "ListReplicas":
            return pb.ListReplicasResponse(replicas=self.replicas)
        model = model_pb2.Model(name="m", version=self.latest)
        if request.model == "m":
            return pb.GetModelResponse(model=model)
        self.looked_s.append(round(asyncio.get_running_loop().time() - self._began_s, 3))
        told = self.tell(self.looked_s[-1])
        if isinstance(told, Exception):
            raise told
        return pb.GetModelResponse(model=model, residency=told)

    @property
    def models(self) -> Models:
        """A client of it."""
        return Models(self)  # type: ignore[arg-type]


@on_virtual_time
async def test_a_wait_ends_once_the_nodes_have_it() -> None:
    """Looks come with growing pauses; each that is not the last tells who has it not, and how far that node is."""
    coordinator = Coordinator(lambda s: kept(2 if s > 6 else 1))
    told: list[Loading] = []
    found = await coordinator.models.wait_loaded(kept(0), on_progress=told.append)

    assert found == kept(2)
    assert coordinator.looked_s == [0.0, 0.2, 0.6, 1.4, 3.0, 5.0, 7.0]
    assert [(seen.residency.loaded_count, seen.why) for seen in told] == [(1, "n2: fetches its file, 40 %")] * 6


@on_virtual_time
async def test_a_model_that_is_loaded_already_is_not_waited_for() -> None:
    """One look, also where there is no time to wait."""
    coordinator = Coordinator(lambda s: kept(3))

    assert await coordinator.models.wait_loaded(kept(0), timeout_s=0) == kept(3)
    assert coordinator.looked_s == [0.0]


@on_virtual_time
async def test_a_wait_that_is_over_says_what_each_node_lacks() -> None:
    """A file on its way, a load that failed, a need that is not met; and that the model stays wanted."""
    coordinator = Coordinator(lambda s: kept(1, 3, refusals=(REFUSED,)))
    coordinator.replicas.append(FAILED)
    with pytest.raises(UnavailableError) as caught:
        await coordinator.models.wait_loaded(kept(0, 3), timeout_s=60)

    assert asyncio.get_running_loop().time() - coordinator._began_s == pytest.approx(60)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    assert caught.value.metadata == {"model": "m@1", "loaded_count": "1", "replica_count": "3"}
    assert caught.value.message == (
        "m@1 is loaded on 1 of 3 nodes after 60 s (n2: fetches its file, 40 %; n3: could not load it (OUT_OF_MEMORY: "
        "too large); n4: needs label zone=a, does not carry it); it stays wanted: wait again, for longer, or see how "
        "far it is with: hivefold model ps m@1"
    )


@on_virtual_time
async def test_a_node_that_is_to_be_replaced_does_not_count() -> None:
    """It has the model only until one that meets the needs has it."""
    coordinator = Coordinator(lambda s: kept(1, 1, refusals=(REFUSED,) if s < 1 else ()))

    assert await coordinator.models.wait_loaded(kept(0, 1)) == kept(1, 1)
    assert coordinator.looked_s == [0.0, 0.2, 0.6, 1.4]


@on_virtual_time
async def test_missing_nodes_are_asked_for() -> None:
    """Where all nodes that there are have it, the error says that there is no other one."""
    coordinator = Coordinator(lambda s: kept(2, 3))
    coordinator.replicas = []
    with pytest.raises(UnavailableError, match=r"2 of 3 nodes .*there is no other node: start one"):
        await coordinator.models.wait_loaded("m@1", timeout_s=1)


@on_virtual_time
async def test_only_some_nodes_are_named() -> None:
    """In a large fleet the line stays readable."""
    refusals = tuple(event_pb2.NodeRefusal(node_id=f"n{number}", detail="is draining") for number in range(10, 30))
    coordinator = Coordinator(lambda s: kept(1, 3, refusals=refusals))
    coordinator.replicas = []
    with pytest.raises(UnavailableError, match="n15: is draining; 14 more nodes") as caught:
        await coordinator.models.wait_loaded("m@1", timeout_s=1)

    assert "n16" not in caught.value.message


@on_virtual_time
async def test_a_model_that_is_removed_meanwhile_ends_the_wait() -> None:
    """There is nothing that could be loaded any more."""
    gone = NotFoundError("no model m@1", reason=Reason.MODEL_NOT_FOUND)
    coordinator = Coordinator(lambda s: kept(0) if s < 1 else gone)
    with pytest.raises(NotFoundError):
        await coordinator.models.wait_loaded(kept(0))

    assert coordinator.looked_s[-1] == 1.4


@on_virtual_time
async def test_a_model_that_is_unloaded_meanwhile_ends_the_wait() -> None:
    """Once two looks say so; the error says how to find out who did it."""
    coordinator = Coordinator(lambda s: kept(0) if s < 1 else None)
    with pytest.raises(ConflictError, match=r"m@1 .*hivefold log explain m") as caught:
        await coordinator.models.wait_loaded(kept(0))

    assert caught.value.reason is Reason.CANCELLED
    assert coordinator.looked_s[-2:] == [1.4, 3.0]


@on_virtual_time
async def test_a_coordinator_that_is_behind_is_not_believed() -> None:
    """After its leader was lost a standby may not know the wish for a moment, or only the one before, for fewer."""
    behind = {0.0: None, 0.2: kept(1, 1, at=6)}
    coordinator = Coordinator(lambda s: behind.get(s, kept(2)))

    assert await coordinator.models.wait_loaded(kept(0)) == kept(2)
    assert coordinator.looked_s == [0.0, 0.2, 0.6]


@on_virtual_time
async def test_a_coordinator_that_is_away_for_a_while_does_not_end_the_wait() -> None:
    """It is asked again until the time is over."""
    away = UnavailableError("away", reason=Reason.SERVER_UNAVAILABLE)
    coordinator = Coordinator(lambda s: away if 0.5 < s < 20 else kept(2 if s > 20 else 1))

    assert await coordinator.models.wait_loaded(kept(0)) == kept(2)
    with pytest.raises(UnavailableError) as caught:
        await Coordinator(lambda s: away if s else kept(1)).models.wait_loaded(kept(0), timeout_s=5)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED


@on_virtual_time
async def test_a_name_is_the_version_that_it_stands_for_at_first() -> None:
    """A version that is added, or an alias that is moved, while somebody waits changes nothing for him."""
    coordinator = Coordinator(lambda s: kept(2 if s > 1 else 0))
    waiting = asyncio.create_task(coordinator.models.wait_loaded("m"))
    await asyncio.sleep(0.1)
    coordinator.latest = 2

    assert (await waiting).model == "m@1"
    assert coordinator.asked == {"m", "m@1"}


@pytest.mark.parametrize("timeout_s", [-1.0, float("nan"), float("inf"), limits.LOADED_WAIT_MAX_S + 1])
async def test_what_is_no_time_is_refused(timeout_s: float) -> None:
    """By name; no wait is without a bound."""
    with pytest.raises(InvalidRequestError) as caught:
        await Coordinator(lambda s: kept(0)).models.wait_loaded(kept(0), timeout_s=timeout_s)

    assert [violation.field for violation in caught.value.violations] == ["timeout_s"]

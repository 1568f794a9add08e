"""The registry as a client meets it: aliases, replicas, removal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hivefold.bus.memory import MemoryBroker
from hivefold.errors import ConflictError, InvalidRequestError, NotFoundError, Reason
from hivefold.log.memory import MemoryEventLog
from hivefold.v1 import job_pb2, model_pb2
from hivefold.v1 import model_service_pb2 as pb
from tests.fixtures.onnx_models import doubling_model
from tests.unit.coordinator.fleet import ScriptedNode, until, working
from tests.unit.coordinator.serving import Served, serving

ROW = np.ones((1, 4), dtype="<f4")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    doubling_model(tmp_path / "double.onnx")
    return tmp_path / "double.onnx"


async def test_a_model_keeps_where_it_came_from(served: Served, file: Path) -> None:
    """Licence, source, description and author are given back with the model."""
    told = model_pb2.ModelProvenance(licence="Apache-2.0", source="https://example.org/d", description="d", author="a")
    model = await served.fleet.models.add(file, "double", provenance=told)

    assert model.provenance == told
    assert (await served.fleet.models.get("double")).provenance == told


async def test_an_alias_moves_from_where_it_is_expected(served: Served, file: Path) -> None:
    """Resolved by every look-up; a repeat of the request moves it once, another's move refuses an expectation."""
    models = served.fleet.models
    await models.add(file, "double")
    moved = await models.move_alias("double@prod", 1, expected_version=0, note="first", request_id="r1")
    again = await models.move_alias("double@prod", 1, expected_version=0, note="first", request_id="r1")
    with pytest.raises(ConflictError) as caught:
        await models.move_alias("double@prod", 1, expected_version=2)

    assert moved == again
    assert (moved.name, moved.alias, moved.version, moved.note) == ("double", "prod", 1, "first")
    assert (await models.get("double@prod")).version == 1
    assert [a.alias for a in (await models.describe("double@1")).aliases] == ["prod"]
    assert [a.alias async for a in models.aliases("double")] == ["prod"]
    assert (caught.value.reason, caught.value.metadata["version"]) == (Reason.ALIAS_MOVED, "1")
    await models.remove_alias("double@prod")
    with pytest.raises(NotFoundError):
        await models.get("double@prod")


@pytest.mark.parametrize("alias", ["double", "double@", "double@3", "double@latest", "double@Prod", "@prod"])
async def test_what_is_no_alias_is_refused(served: Served, file: Path, alias: str) -> None:
    """By name and rule."""
    await served.fleet.models.add(file, "double")
    with pytest.raises(InvalidRequestError) as caught:
        await served.fleet.models.move_alias(alias, 1)

    assert {violation.field for violation in caught.value.violations} <= {"alias", "name"}


async def test_a_job_records_what_an_alias_stood_for(served: Served, file: Path) -> None:
    """The job's model is the version, whatever the alias does later."""
    await served.fleet.models.add(file, "double")
    await served.fleet.models.move_alias("double@prod", 1)
    job = await served.fleet.jobs.submit_infer("double@prod", ROW)
    await served.fleet.models.remove_alias("double@prod")

    shown = await served.fleet.jobs.get(job.job_id)
    assert (shown.spec.infer.model, shown.model.version) == ("double@prod", 1)


async def test_replicas_are_kept_where_nodes_are(broker: MemoryBroker, file: Path) -> None:
    """As many as asked, replaced when a node goes; what is missing is explained; unloaded when no longer wanted."""
    async with serving(MemoryEventLog(), broker, lost_after_ms=300) as served:
        await served.fleet.models.add(file, "double")
        one, two, three = (ScriptedNode(broker, f"n{number}") for number in (1, 2, 3))
        async with working(three):
            async with working(one):
                first = await served.fleet.models.keep("double", replicas=3, pinned=True)
                await until(lambda: len(one.order.models) == len(three.order.models) == 1)
                missing = await served.fleet.models.keep("double", needs=job_pb2.Needs(node_labels={"zone": "a"}))
                await served.fleet.models.keep("double", replicas=1, needs=job_pb2.Needs())
            async with working(two):
                await until(lambda: len(two.order.models) + len(three.order.models) == 1)
                shown = [r async for r in served.fleet.models.replicas() if r.kept]
            await until(lambda: len(three.order.models) == 1)
            await served.fleet.models.keep("double", replicas=0)
            await until(lambda: len(three.order.models) == 0)
        kept = (await served.fleet.models.describe("double")).HasField("residency")

    assert first.replica_count == 3
    assert [kept.pinned for kept in one.order.models] in ([True], [])
    assert {(refusal.node_id, refusal.detail) for refusal in missing.refusals} == {
        (node_id, "needs label zone=a, does not carry it") for node_id in ("n1", "n3")
    }
    assert [replica.model for replica in shown] == ["double@1"]
    assert kept is False


async def test_a_node_that_cannot_load_is_passed_over(served: Served, broker: MemoryBroker, file: Path) -> None:
    """Another is chosen, and the failure is told."""
    digest = (await served.fleet.models.add(file, "double")).digest
    broken, sound = ScriptedNode(broker, "n1", broken=frozenset({digest})), ScriptedNode(broker, "n2")
    async with working(broken):
        await served.fleet.models.keep("double", replicas=1)
        await until(lambda: broken.order.sequence > 0 and not broken.order.models)
        async with working(sound):
            await until(lambda: len(sound.order.models) == 1)
            replicas = {r.node_id: r async for r in served.fleet.models.replicas("double")}

    assert replicas["n1"].state == pb.REPLICA_STATE_FAILED
    assert replicas["n1"].failure.message == "too large"
    assert replicas["n2"].kept


async def test_a_removed_model_leaves_no_bytes(served: Served, file: Path, tmp_path: Path) -> None:
    """They go when no version and no open job has them, and are there again when they are added again."""
    models = served.fleet.models
    await models.add(file, "double")
    await models.add(file, "same")
    await models.move_alias("double@prod", 1)
    with pytest.raises(ConflictError) as caught:
        await models.remove("double@1")
    await models.remove_alias("double@prod")
    await models.remove("double@1", request_id="r1")
    await models.remove("double@1", request_id="r1")
    job = await served.fleet.jobs.submit_infer("same", ROW)
    stored = len(served.chunks.chunks)
    await models.remove("same@1", force=True)
    held = len(served.chunks.chunks)
    await served.fleet.jobs.cancel(job.job_id)
    await until(lambda: not served.writer.state.discarded)
    left = len(served.chunks.chunks)

    assert (caught.value.reason, caught.value.metadata["users"]) == (Reason.MODEL_IN_USE, "alias double@prod")
    assert held == stored, "an open job still reads them"
    assert left < held
    assert (await models.add(file, "double")).version == 2, "a number is given once"
    assert (await served.fleet.jobs.get(job.job_id)).model.name == "same", "jobs of the past are told as they were"

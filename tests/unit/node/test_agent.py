"""The node's loop against the bus in memory: real actors, no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from actors.backends.echo import EchoBackend, EchoSession
from actors.backends.onnxruntime import OnnxRuntimeBackend
from actors.tensors import Array
from hivefold.blobs.content import put_manifest
from hivefold.blobs.files import manifest_of_file
from hivefold.bus.port import Message
from hivefold.v1 import error_pb2, job_pb2, work_pb2
from node.residency.policy import Rules
from tests.fixtures.node import BOOT, NODE, Given, infer_work, probes, running, shard
from tests.fixtures.onnx_models import doubling_model


async def test_every_probe_task_gets_one_outcome_and_then_its_message_is_acknowledged(tmp_path: Path) -> None:
    """Outcomes are stored first, the acknowledgement follows."""
    async with running(tmp_path) as rig:
        await rig.send(probes(1000))
        outcomes = await rig.outcome_count(1000)
        assert sorted(outcome.task for outcome in outcomes) == list(range(1000))
        assert all(not outcome.HasField("failure") and outcome.row_count == 1 for outcome in outcomes)
        assert {outcome.boot_id for outcome in outcomes} == {BOOT}
        queue = rig.broker.work_queue(NODE)
        assert queue is not None
        await rig.until(lambda: rig.agent.core.idle and not queue.unanswered)
        rig.broker.redeliver(NODE)
        assert not queue.waiting
        assert not queue.unanswered


async def test_work_that_comes_as_a_signal_too_runs_once(tmp_path: Path) -> None:
    """At once; its copy in the stream is acknowledged when the outcome is stored, and runs nothing."""
    async with running(tmp_path) as rig:
        told: list[Message] = []
        await rig.coordinator.signals().subscribe("express.results.>", told.append)
        await rig.until(lambda: bool(rig.beats))  # it listens
        work = probes(1)
        message = Message(f"express.work.{NODE}", work.SerializeToString())
        rig.coordinator.signals().publish(message)
        (outcome,) = await rig.outcome_count(1)
        assert [work_pb2.Outcome.FromString(each.data) for each in told] == [outcome]
        await rig.send(work)
        await rig.until(lambda: rig.agent.core.idle)
        queue = rig.broker.work_queue(NODE)
        await rig.until(lambda: queue is not None and not queue.waiting and not queue.unanswered)
        assert len(rig.outcomes()) == 1


async def test_a_fenced_node_takes_no_work_from_a_signal(tmp_path: Path) -> None:
    """The copy in the stream waits; a signal would be the one way around the fence."""
    async with running(tmp_path) as rig:
        await rig.until(lambda: bool(rig.beats))
        rig.agent.core.fence()
        message = Message(f"express.work.{NODE}", probes(1).SerializeToString())
        rig.coordinator.signals().publish(message)
        assert rig.agent.core.idle
        assert not rig.outcomes()


async def test_rows_go_through_the_model_in_order(tmp_path: Path) -> None:
    """Two shards of a blob give the model's outputs for exactly their rows."""
    model = doubling_model(tmp_path / "double.onnx")
    async with running(tmp_path, backend=OnnxRuntimeBackend(1)) as rig:
        rows = np.arange(400, dtype=np.float32).reshape(100, 4)
        work = await infer_work(rig, rows, model)
        shard(work, 0, 0, 60)
        shard(work, 1, 60, 40)
        await rig.send(work)
        first, second = sorted(await rig.outcome_count(2), key=lambda outcome: outcome.task)
        got = np.frombuffer(first.inline_output + second.inline_output, dtype="<f4").reshape(100, 4)
        assert first.failure.reason == error_pb2.REASON_UNSPECIFIED, first.failure
        np.testing.assert_array_equal(got, rows * 2)
        assert list(first.output.tensors[0].shape) == [60, 4]
        assert rig.agent.infer.shelf.loaded == (work.model.digest,)


async def test_a_shared_file_is_read_where_it_lies(tmp_path: Path) -> None:
    """By its path, from an offset, verified against its manifest."""
    rows = np.arange(400, dtype=np.float32).reshape(100, 4)
    path = tmp_path / "rows.bin"
    path.write_bytes(b"header.." + rows.tobytes())
    async with running(tmp_path) as rig:
        work = await infer_work(rig, rows, doubling_model(tmp_path / "m.onnx"))
        data_set = work.spec.infer.data_set
        data_set.file.path = str(path)
        data_set.file.content.CopyFrom(await put_manifest(rig.chunks, manifest_of_file(path)))
        data_set.data_offset_bytes = 8
        work.spec.infer.outputs.append("total")
        shard(work, 0, 10, 5)
        await rig.send(work)
        (outcome,) = await rig.outcome_count(1)
        np.testing.assert_array_equal(np.frombuffer(outcome.inline_output, "<f4"), rows[10:15].sum(axis=1))


async def test_a_shared_file_that_changed_is_refused(tmp_path: Path) -> None:
    """Its bytes are not what was submitted; another node may still have them."""
    rows = np.zeros((10, 4), dtype=np.float32)
    path = tmp_path / "rows.bin"
    path.write_bytes(rows.tobytes())
    async with running(tmp_path) as rig:
        work = await infer_work(rig, rows, doubling_model(tmp_path / "m.onnx"))
        data_set = work.spec.infer.data_set
        data_set.file.path = str(path)
        data_set.file.content.CopyFrom(await put_manifest(rig.chunks, manifest_of_file(path)))
        path.write_bytes(b"x" * 160)
        shard(work, 0, 0, 10)
        await rig.send(work)
        (outcome,) = await rig.outcome_count(1)
        assert outcome.failure.reason == error_pb2.REASON_DIGEST_MISMATCH
        assert outcome.failure.retryable


async def test_a_model_whose_bytes_are_not_its_digests_fails_the_attempt(tmp_path: Path) -> None:
    """Nothing is left in the local folder, and the node goes on."""
    async with running(tmp_path) as rig:
        work = await infer_work(rig, np.zeros((10, 4), dtype=np.float32), doubling_model(tmp_path / "m.onnx"))
        work.model.digest = "0" * 64
        shard(work, 0, 0, 10)
        await rig.send(work)
        (outcome,) = await rig.outcome_count(1)
        assert outcome.failure.reason == error_pb2.REASON_DIGEST_MISMATCH
        assert list((tmp_path / "models").iterdir()) == []
        await rig.send(probes(1))
        assert len(await rig.outcome_count(2)) == 2


async def test_a_spoiled_local_model_is_fetched_again(tmp_path: Path) -> None:
    """The first attempt says so, the next one works: the file is verified at each load."""
    model = doubling_model(tmp_path / "m.onnx")
    async with running(tmp_path) as rig:
        work = await infer_work(rig, np.zeros((10, 4), dtype=np.float32), model)
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / f"{work.model.digest}.onnx").write_bytes(model[:-1] + b"?")
        shard(work, 0, 0, 10)
        await rig.send(work)
        (first,) = await rig.outcome_count(1)
        assert first.failure.reason == error_pb2.REASON_DIGEST_MISMATCH
        work.items[0].attempt = 2
        await rig.send(work)
        outcomes = await rig.outcome_count(2)
        assert not outcomes[1].HasField("failure")


async def test_nan_policy_allow_lets_nan_through(tmp_path: Path) -> None:
    """The job decides."""
    rows = np.full((2, 4), np.nan, dtype=np.float32)
    async with running(tmp_path) as rig:
        work = await infer_work(rig, rows, doubling_model(tmp_path / "m.onnx"))
        work.spec.infer.nan_policy = job_pb2.NAN_POLICY_ALLOW
        shard(work, 0, 0, 2)
        await rig.send(work)
        (outcome,) = await rig.outcome_count(1)
        assert not outcome.HasField("failure")


async def test_a_cancelled_job_gives_its_sleeping_tasks_back_at_once(tmp_path: Path) -> None:
    """Those that run are aborted, those that wait are answered."""
    async with running(tmp_path) as rig:
        await rig.send(probes(6, sleep_ms=60_000))
        await rig.until(lambda: rig.agent.core.running > 0)
        await rig.signal("control.node-a", work_pb2.CancelWork(term=1, job_id="job-1"))
        outcomes = await rig.outcome_count(6)
        assert {outcome.failure.reason for outcome in outcomes} == {error_pb2.REASON_CANCELLED}


async def test_a_coordinator_that_is_refused_cancels_nothing(tmp_path: Path) -> None:
    """Else one whose log was cut could make jobs of the true one fail: a cancelled attempt is not tried again."""
    async with running(tmp_path) as rig:
        await rig.send(probes(1, sleep_ms=60_000))
        await rig.until(lambda: rig.agent.core.running == 1)
        rig.agent.witness.refusal = "the log was cut"
        await rig.signal("control.node-a", work_pb2.CancelWork(term=9, job_id="job-1"))
        assert (rig.agent.core.running, rig.agent.core.term) == (1, 1)
        rig.agent.witness.refusal = ""
        await rig.signal("control.node-a", work_pb2.CancelWork(term=1, job_id="job-1"))
        await rig.outcome_count(1)


async def test_work_that_is_cancelled_before_it_took_a_step_is_answered(tmp_path: Path) -> None:
    """Work and its cancellation come in one turn of the loop."""
    async with running(tmp_path) as rig:
        cancel = Message("control.node-a", work_pb2.CancelWork(term=1, job_id="job-1").SerializeToString())
        work = probes(2, sleep_ms=60_000)
        rig.agent._accept(Given(work.SerializeToString()), work)
        rig.agent._on_control(cancel)
        outcomes = await rig.outcome_count(2)
        assert {outcome.failure.reason for outcome in outcomes} == {error_pb2.REASON_CANCELLED}


async def test_expired_work_is_answered_without_being_run(tmp_path: Path) -> None:
    """DEADLINE_EXCEEDED, and the model is not even fetched."""
    async with running(tmp_path) as rig:
        work = await infer_work(rig, np.zeros((10, 4), dtype=np.float32), doubling_model(tmp_path / "m.onnx"))
        work.deadline_time.FromMicroseconds(1)
        shard(work, 0, 0, 10)
        await rig.send(work)
        (outcome,) = await rig.outcome_count(1)
        assert outcome.failure.reason == error_pb2.REASON_DEADLINE_EXCEEDED
        assert not (tmp_path / "models").exists()


async def test_a_node_without_a_pulse_fences_itself_and_comes_back_with_one(tmp_path: Path) -> None:
    """Fenced it serves nothing and starts nothing; the work comes again and is done."""
    async with running(tmp_path) as rig:
        await rig.send(probes(5, sleep_ms=40))
        await rig.until(lambda: rig.agent.core.running > 0)
        rig.clock.advance_ms(15_001)
        rig.agent._watch()
        assert not rig.serving()
        assert rig.agent.describe().fenced
        await rig.until(lambda: rig.agent.core.idle)
        done = len(rig.broker.results)
        assert done < 5
        await rig.pulse()
        assert rig.serving()
        assert len(await rig.outcome_count(5)) == 5


async def test_a_deposed_coordinators_pulse_does_not_lift_the_fence(tmp_path: Path) -> None:
    """Its term is lower than one that was seen."""
    async with running(tmp_path) as rig:
        await rig.pulse(term=4)
        rig.clock.advance_ms(15_001)
        rig.agent._watch()
        await rig.pulse(term=3)
        assert rig.agent.core.fenced


async def test_work_for_another_boot_or_node_or_of_no_sense_is_dropped(tmp_path: Path) -> None:
    """Acknowledged and forgotten; good work behind it is done."""
    async with running(tmp_path) as rig:
        other_boot, other_node, unknown = probes(1), probes(1), probes(1)
        other_boot.boot_id = "boot-0"
        other_node.node_id = "node-b"
        unknown.spec.ClearField("kind")
        for work in (other_boot, other_node, unknown):
            await rig.send(work)
        await rig.coordinator.work_sender().send(NODE, b"\xff\xff")
        await rig.send(probes(1, first=7))
        (outcome,) = await rig.outcome_count(1)
        assert outcome.task == 7


async def test_a_repeated_message_is_run_once(tmp_path: Path) -> None:
    """Whether it comes while its attempts run or after they ended."""
    async with running(tmp_path) as rig:
        for _ in range(3):
            await rig.send(probes(3))
        await rig.outcome_count(3)
        await rig.send(probes(3))
        await rig.until(lambda: rig.agent.core.idle)
        assert len(rig.broker.results) == 3


async def test_a_signal_of_no_sense_changes_nothing(tmp_path: Path) -> None:
    """Pulses and cancels that do not parse are dropped."""
    async with running(tmp_path) as rig:
        for subject in ("fleet.pulse", "control.node-a"):
            rig.coordinator.signals().publish(Message(subject, b"\xff"))
        await rig.send(probes(1))
        assert len(await rig.outcome_count(1)) == 1


async def test_outcomes_wait_for_the_broker_and_then_arrive(tmp_path: Path) -> None:
    """Nothing is lost while the connection is down; health says so meanwhile."""
    async with running(tmp_path) as rig:
        await rig.send(probes(4, sleep_ms=50))
        await rig.until(lambda: rig.agent.core.running > 0)
        rig.node.disconnect()
        assert not rig.serving()
        assert not rig.agent.describe().broker_connected
        rig.node.reconnect()
        assert rig.serving()
        assert len(await rig.outcome_count(4)) == 4


async def test_the_least_used_model_makes_room(tmp_path: Path) -> None:
    """The one unused for longest goes when there are too many."""
    async with running(tmp_path, rules=Rules(models=2)) as rig:
        first = ""
        for number in range(3):
            model = doubling_model(tmp_path / "m.onnx", name=f"m{number}")
            work = await infer_work(rig, np.zeros((1, 4), dtype=np.float32), model)
            work.job_id = f"job-{number}"
            first = first or work.model.digest
            shard(work, 0, 0, 1)
            await rig.send(work)
            await rig.outcome_count(number + 1)
        loaded = rig.agent.infer.shelf.loaded
        assert len(loaded) == 2
        assert first not in loaded


class OnceBroken(EchoBackend):
    """A runtime that breaks on its first batch and takes its actor's behaviour with it."""

    def open(self, path: Path) -> EchoSession:
        session = super().open(path)
        if len(self.opened) == 1:
            session.run = broken  # type: ignore[method-assign,assignment]
        return session


def broken(*_arguments: object) -> list[Array]:
    raise MemoryError


async def test_a_model_that_broke_is_loaded_anew(tmp_path: Path) -> None:
    """The attempt fails with the reason and may be repeated; the next one finds the model in a new actor."""
    backend = OnceBroken()
    async with running(tmp_path, backend=backend) as rig:
        work = await infer_work(rig, np.zeros((4, 4), dtype=np.float32), doubling_model(tmp_path / "m.onnx"))
        shard(work, 0, 0, 4)
        await rig.send(work)
        (first,) = await rig.outcome_count(1)
        assert first.failure.reason == error_pb2.REASON_OUT_OF_MEMORY
        assert first.failure.retryable
        work.items[0].attempt = 2
        await rig.send(work)
        outcomes = await rig.outcome_count(2)
        assert not outcomes[1].HasField("failure")
        assert len(backend.opened) == 2


async def test_what_still_runs_when_the_time_to_leave_is_over_is_returned(tmp_path: Path) -> None:
    """The node leaves on time, and no attempt stays unanswered."""
    async with running(tmp_path) as rig:
        rig.agent.drain_s = 0.05
        await rig.send(probes(5, sleep_ms=60_000))
        await rig.until(lambda: rig.agent.core.running > 0)
        rig.stop.set()
        outcomes = await rig.outcome_count(5)
        assert {outcome.failure.reason for outcome in outcomes} == {error_pb2.REASON_RETURNED}
    assert rig.beats[-1].leaving
    assert rig.agent.core.idle

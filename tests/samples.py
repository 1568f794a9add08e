"""Plausible values for tests of the core: small fleets, jobs and answers, with room to vary what matters."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.core import commands as cmd
from coordinator.core.model import (
    BlobRef,
    DataSet,
    Failure,
    Gpu,
    InferSpec,
    Job,
    JobSpec,
    Model,
    Needs,
    NodeSpec,
    Pairs,
    Priority,
    ProbeSpec,
    TaskOutput,
    TensorPart,
    TensorSpec,
)
from hivefold.ids import BootId, Digest, JobId, ModelName, NodeId, RequestId

DIGEST = Digest("d" * 64)
GIB = 1 << 30
START_US = 1_700_000_000_000_000


def node_spec(
    name: str = "n1",
    *,
    boot: str = "b1",
    slots: int = 2,
    labels: Pairs = (),
    memory_bytes: int = 8 * GIB,
    gpus: int = 0,
) -> NodeSpec:
    """A node with eight gigabytes and two slots, unless said otherwise."""
    return NodeSpec(
        node_id=NodeId(name),
        boot_id=BootId(boot),
        slot_count=slots,
        labels=labels,
        cpu_count=slots,
        memory_bytes=memory_bytes,
        gpus=tuple(Gpu("GPU", 16 * GIB) for _ in range(gpus)),
    )


def model(name: str = "digits", *, version: int = 0, digest: Digest = DIGEST, size_bytes: int = 100_000) -> Model:
    """A classifier of rows of 64 numbers."""
    return Model(
        name=ModelName(name),
        version=version,
        digest=digest,
        artifact=BlobRef(digest, size_bytes),
        platform="onnx",
        inputs=(TensorSpec("x", "FP32", (-1, 64)),),
        outputs=(TensorSpec("label", "INT64", (-1,)),),
    )


def infer(rows: int, *, model_name: str = "digits") -> InferSpec:
    """Inference over rows that fit the model."""
    data = DataSet(BlobRef(Digest("e" * 64), rows * 256), "", "FP32", (64,), rows)
    return InferSpec(model_name, data)


def submit(
    job: str,
    kind: InferSpec | ProbeSpec,
    *,
    request: str = "",
    priority: Priority = Priority.BATCH,
    needs: Needs | None = None,
    timeout_us: int = 0,
    max_attempts: int = 0,
) -> cmd.SubmitJob:
    """A submit whose request id is the job's id, unless said otherwise."""
    spec = JobSpec(
        kind,
        source="test",
        priority=priority,
        needs=needs or Needs(),
        timeout_us=timeout_us,
        max_attempts=max_attempts,
    )
    return cmd.SubmitJob(JobId(job), RequestId(request or job), spec)


def output(task: int, rows: int) -> TaskOutput:
    """What an infer task gives for its rows."""
    return TaskOutput((TensorPart("label", "INT64", (rows,)),), None, Digest(f"{task:064x}"), rows * 8)


def answers(
    node_id: NodeId,
    job: Job,
    tasks: Sequence[tuple[int, int]],
    *,
    failure: Failure | None = None,
    duration_us: int = 10_000,
) -> cmd.ReportOutcomes:
    """A node's answers to (task, attempt number): success, or all with one failure."""
    infers = isinstance(job.spec.kind, InferSpec)
    if failure is None and not infers:
        indexes, numbers = zip(*tasks, strict=True) if tasks else ((), ())
        each = len(tasks)
        columns = cmd.OutcomeColumns(
            job.job_id, indexes, numbers, (duration_us,) * each, (1,) * each, tuple(range(1, each + 1))
        )
        return cmd.ReportOutcomes(node_id, columns=(columns,))
    reports = tuple(
        cmd.OutcomeReport(
            job.job_id,
            task,
            number,
            duration_us,
            job.rows[task].row_count if infers and task in job.rows else 0,
            index,
            failure,
            None if failure else output(task, job.rows[task].row_count if task in job.rows else 0),
        )
        for index, (task, number) in enumerate(tasks, 1)
    )
    return cmd.ReportOutcomes(node_id, reports=reports)

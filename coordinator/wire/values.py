"""Values that commands, events and views share, to and from protobuf."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import assert_never

from coordinator.core import model as m
from coordinator.core.registered import Provenance
from coordinator.wire.times import duration, micros, timestamp
from hivefold.errors import Reason
from hivefold.ids import BootId, Digest, ModelName, NodeId
from hivefold.models.passport import messages as passports
from hivefold.v1 import blob_pb2, error_pb2, fleet_pb2, job_pb2, model_pb2, work_pb2

REASON_TO_PROTO = {reason: error_pb2.Reason.Value(f"REASON_{reason}") for reason in Reason}
REASON_FROM_PROTO = {number: reason for reason, number in REASON_TO_PROTO.items()}
_TYPE_TO_PROTO = {name.removeprefix("DATA_TYPE_"): number for name, number in model_pb2.DataType.items()}
_TYPE_FROM_PROTO = {number: name for name, number in _TYPE_TO_PROTO.items()}
_PRIORITY_TO_PROTO = {p: job_pb2.Priority.Value(f"PRIORITY_{p}") for p in m.Priority}
_PRIORITY_FROM_PROTO = {number: p for p, number in _PRIORITY_TO_PROTO.items()}
_NAN_TO_PROTO = {p: job_pb2.NanPolicy.Value(f"NAN_POLICY_{p}") for p in m.NanPolicy}
_NAN_FROM_PROTO = {number: p for p, number in _NAN_TO_PROTO.items()}


def pairs(labels: Mapping[str, str]) -> m.Pairs:
    """A map as sorted pairs."""
    return tuple(sorted(labels.items()))


def data_type_to_proto(name: str) -> model_pb2.DataType.ValueType:
    """ "FP32" as the enum; unknown names as UNSPECIFIED."""
    return _TYPE_TO_PROTO.get(name, model_pb2.DATA_TYPE_UNSPECIFIED)


def data_type_from_proto(number: model_pb2.DataType.ValueType) -> str:
    """The enum as "FP32"."""
    return _TYPE_FROM_PROTO.get(number, "UNSPECIFIED")


def failure_to_proto(value: m.Failure) -> error_pb2.Failure:
    """A failure."""
    return error_pb2.Failure(
        reason=REASON_TO_PROTO[value.reason],
        message=value.message,
        retryable=value.retryable,
        metadata=dict(value.metadata),
    )


def failure_from_proto(message: error_pb2.Failure) -> m.Failure:
    """A failure; a reason that this version does not know reads as UNSPECIFIED."""
    reason = REASON_FROM_PROTO.get(message.reason, Reason.UNSPECIFIED)
    return m.Failure(reason, message.message, message.retryable, pairs(message.metadata))


def blob_to_proto(value: m.BlobRef) -> blob_pb2.BlobRef:
    """A blob's name."""
    return blob_pb2.BlobRef(root=value.root, size_bytes=value.size_bytes)


def blob_from_proto(message: blob_pb2.BlobRef) -> m.BlobRef:
    """A blob's name."""
    return m.BlobRef(Digest(message.root), message.size_bytes)


def tensor_spec_to_proto(value: m.TensorSpec) -> model_pb2.TensorSpec:
    """A model's input or output."""
    return model_pb2.TensorSpec(name=value.name, data_type=data_type_to_proto(value.data_type), shape=value.shape)


def tensor_specs_from_proto(messages: Iterable[model_pb2.TensorSpec]) -> tuple[m.TensorSpec, ...]:
    """A model's inputs or outputs."""
    return tuple(m.TensorSpec(t.name, data_type_from_proto(t.data_type), tuple(t.shape)) for t in messages)


@lru_cache(maxsize=64)
def model_to_proto(value: m.Model) -> model_pb2.Model:
    """A model version. Shared between callers, who MUST NOT change it."""
    return model_pb2.Model(
        name=value.name,
        version=value.version,
        digest=value.digest,
        artifact=blob_to_proto(value.artifact),
        platform=value.platform,
        inputs=[tensor_spec_to_proto(tensor) for tensor in value.inputs],
        outputs=[tensor_spec_to_proto(tensor) for tensor in value.outputs],
        create_time=timestamp(value.create_time_us),
        labels=dict(value.labels),
        passport=passports.to_proto(value.passport) if value.passport else None,
        provenance=_provenance_to_proto(value.provenance) if value.provenance else None,
    )


@lru_cache(maxsize=64)
def job_model_to_proto(value: m.Model) -> model_pb2.Model:
    """The model of a job: without passport and provenance, which each message would carry. MUST NOT be changed."""
    message = model_pb2.Model()
    message.CopyFrom(model_to_proto(value))
    message.ClearField("passport")
    message.ClearField("provenance")
    return message


def model_from_proto(message: model_pb2.Model) -> m.Model:
    """A model version."""
    return m.Model(
        name=ModelName(message.name),
        version=message.version,
        digest=Digest(message.digest),
        artifact=blob_from_proto(message.artifact),
        platform=message.platform,
        inputs=tensor_specs_from_proto(message.inputs),
        outputs=tensor_specs_from_proto(message.outputs),
        create_time_us=micros(message.create_time),
        labels=pairs(message.labels),
        passport=passports.from_proto(message.passport) if message.HasField("passport") else None,
        provenance=provenance_from_proto(message.provenance) if message.HasField("provenance") else None,
    )


def _provenance_to_proto(value: Provenance) -> model_pb2.ModelProvenance:
    return model_pb2.ModelProvenance(
        licence=value.licence, source=value.source, description=value.description, author=value.author
    )


def provenance_from_proto(message: model_pb2.ModelProvenance) -> Provenance:
    """Where a model came from."""
    return Provenance(message.licence, message.source, message.description, message.author)


def needs_to_proto(value: m.Needs) -> job_pb2.Needs:
    """What a node must have."""
    return job_pb2.Needs(
        node_labels=dict(value.node_labels), memory_bytes=value.memory_bytes, gpu_count=value.gpu_count
    )


def needs_from_proto(message: job_pb2.Needs) -> m.Needs:
    """What a node must have."""
    return m.Needs(pairs(message.node_labels), message.memory_bytes, message.gpu_count)


def data_set_to_proto(value: m.DataSet) -> job_pb2.DataSet:
    """A data set."""
    message = job_pb2.DataSet(
        data_type=data_type_to_proto(value.data_type),
        row_shape=value.row_shape,
        row_count=value.row_count,
        data_offset_bytes=value.data_offset_bytes,
        origin=value.origin,
    )
    if value.path:
        message.file.CopyFrom(job_pb2.FileRef(path=value.path, content=blob_to_proto(value.content)))
    else:
        message.blob.CopyFrom(blob_to_proto(value.content))
    return message


def data_set_from_proto(message: job_pb2.DataSet) -> m.DataSet:
    """A data set."""
    by_path = message.WhichOneof("location") == "file"
    return m.DataSet(
        content=blob_from_proto(message.file.content if by_path else message.blob),
        path=message.file.path if by_path else "",
        data_type=data_type_from_proto(message.data_type),
        row_shape=tuple(message.row_shape),
        row_count=message.row_count,
        data_offset_bytes=message.data_offset_bytes,
        origin=message.origin,
    )


@lru_cache(maxsize=256)
def job_spec_to_proto(value: m.JobSpec) -> job_pb2.JobSpec:
    """What a client asks for. Shared between callers, who MUST NOT change it: a job's spec never does, and
    each of its records, work messages and events shows it.
    """
    message = job_pb2.JobSpec(
        source=value.source,
        priority=_PRIORITY_TO_PROTO[value.priority],
        labels=dict(value.labels),
        response_subject=value.response_subject,
        timeout=duration(value.timeout_us),
        needs=needs_to_proto(value.needs),
        max_attempts=value.max_attempts,
    )
    match value.kind:
        case m.InferSpec() as infer:
            message.infer.CopyFrom(_infer_to_proto(infer))
        case m.ProbeSpec() as probe:
            message.probe.CopyFrom(
                job_pb2.ProbeSpec(task_count=probe.task_count, task_duration=duration(probe.task_duration_us))
            )
        case other:
            assert_never(other)
    return message


def job_spec_from_proto(message: job_pb2.JobSpec) -> m.JobSpec:
    """What a client asks for. The kind MUST be set: a spec without one reads as a probe of no tasks."""
    kind: m.JobKind
    if message.WhichOneof("kind") == "infer":
        kind = _infer_from_proto(message.infer)
    else:
        kind = m.ProbeSpec(message.probe.task_count, micros(message.probe.task_duration))
    return m.JobSpec(
        kind=kind,
        source=message.source,
        priority=_PRIORITY_FROM_PROTO.get(message.priority, m.Priority.BATCH),
        labels=pairs(message.labels),
        response_subject=message.response_subject,
        timeout_us=micros(message.timeout),
        needs=needs_from_proto(message.needs),
        max_attempts=message.max_attempts,
    )


def _infer_to_proto(value: m.InferSpec) -> job_pb2.InferSpec:
    return job_pb2.InferSpec(
        model=value.model,
        data_set=data_set_to_proto(value.data_set),
        outputs=value.outputs,
        nan_policy=_NAN_TO_PROTO[value.nan_policy],
        target_task_duration=duration(value.target_task_us),
        batch_rows=value.batch_rows,
    )


def _infer_from_proto(message: job_pb2.InferSpec) -> m.InferSpec:
    return m.InferSpec(
        model=message.model,
        data_set=data_set_from_proto(message.data_set),
        outputs=tuple(message.outputs),
        nan_policy=_NAN_FROM_PROTO.get(message.nan_policy, m.NanPolicy.REJECT),
        target_task_us=micros(message.target_task_duration),
        batch_rows=message.batch_rows,
    )


def node_spec_to_proto(value: m.NodeSpec) -> fleet_pb2.NodeSpec:
    """What a node says of itself."""
    return fleet_pb2.NodeSpec(
        node_id=value.node_id,
        boot_id=value.boot_id,
        slot_count=value.slot_count,
        labels=dict(value.labels),
        cpu_count=value.cpu_count,
        memory_bytes=value.memory_bytes,
        gpus=[fleet_pb2.Gpu(product=gpu.product, memory_bytes=gpu.memory_bytes) for gpu in value.gpus],
        grpc_address=value.grpc_address,
        code_version=value.code_version,
        host_name=value.host_name,
        pid=value.pid,
    )


def node_spec_from_proto(message: fleet_pb2.NodeSpec) -> m.NodeSpec:
    """What a node says of itself."""
    return m.NodeSpec(
        node_id=NodeId(message.node_id),
        boot_id=BootId(message.boot_id),
        slot_count=message.slot_count,
        labels=pairs(message.labels),
        cpu_count=message.cpu_count,
        memory_bytes=message.memory_bytes,
        gpus=tuple(m.Gpu(gpu.product, gpu.memory_bytes) for gpu in message.gpus),
        grpc_address=message.grpc_address,
        code_version=message.code_version,
        host_name=message.host_name,
        pid=message.pid,
    )


def output_to_proto(value: m.TaskOutput) -> work_pb2.TaskOutput:
    """What a task produced."""
    return work_pb2.TaskOutput(
        tensors=[
            work_pb2.TensorPart(name=t.name, data_type=data_type_to_proto(t.data_type), shape=t.shape)
            for t in value.tensors
        ],
        blob=blob_to_proto(value.blob) if value.blob else None,
        digest=value.digest,
        size_bytes=value.size_bytes,
    )


def output_from_proto(message: work_pb2.TaskOutput) -> m.TaskOutput:
    """What a task produced."""
    return m.TaskOutput(
        tensors=tuple(m.TensorPart(t.name, data_type_from_proto(t.data_type), tuple(t.shape)) for t in message.tensors),
        blob=blob_from_proto(message.blob) if message.HasField("blob") else None,
        digest=Digest(message.digest),
        size_bytes=message.size_bytes,
    )

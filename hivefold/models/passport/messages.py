"""Passports to and from protobuf."""

from __future__ import annotations

from hivefold.models.passport import facts as f
from hivefold.v1 import passport_pb2 as pb


def to_proto(value: f.Passport) -> pb.ModelPassport:
    """A passport."""
    return pb.ModelPassport(
        format=value.format,
        format_version=value.format_version,
        framework=value.framework,
        task=pb.TaskFamily.Value(f"TASK_FAMILY_{value.task}"),
        architecture=value.architecture,
        architecture_name=value.architecture_name,
        parameter_count=value.parameter_count,
        precisions=[
            pb.PrecisionCount(data_type=p.data_type, parameter_count=p.parameter_count, size_bytes=p.size_bytes)
            for p in value.precisions
        ],
        inputs=[_port(port) for port in value.inputs],
        outputs=[_port(port) for port in value.outputs],
        size_bytes=value.size_bytes,
        needs=_needs(value.needs),
        safety=_safety(value.safety),
        notes=value.notes,
    )


def from_proto(message: pb.ModelPassport) -> f.Passport:
    """A passport. What a newer version says and this one does not know reads as unspecified or unknown."""
    return f.Passport(
        format=message.format,
        format_version=message.format_version,
        framework=message.framework,
        task=_TASKS.get(message.task, f.TaskFamily.UNSPECIFIED),
        architecture=message.architecture,
        architecture_name=message.architecture_name,
        parameter_count=message.parameter_count if message.HasField("parameter_count") else None,
        precisions=tuple(f.Precision(p.data_type, p.parameter_count, p.size_bytes) for p in message.precisions),
        inputs=tuple(f.Port(p.name, p.data_type, tuple(p.shape)) for p in message.inputs),
        outputs=tuple(f.Port(p.name, p.data_type, tuple(p.shape)) for p in message.outputs),
        size_bytes=message.size_bytes,
        needs=_needs_of(message.needs),
        safety=f.Safety(
            _VERDICTS.get(message.safety.verdict, f.Verdict.UNKNOWN),
            tuple(_finding(finding) for finding in message.safety.findings),
            tuple(message.safety.coverage),
        ),
        notes=tuple(message.notes),
    )


_TASKS = {pb.TaskFamily.Value(f"TASK_FAMILY_{task}"): task for task in f.TaskFamily}
_VERDICTS = {pb.SafetyVerdict.Value(f"SAFETY_VERDICT_{verdict}"): verdict for verdict in f.Verdict}
_COMPLEXITIES = {pb.ModelComplexity.Value(f"MODEL_COMPLEXITY_{size}"): size for size in f.Complexity}


def _port(value: f.Port) -> pb.ModelPort:
    return pb.ModelPort(name=value.name, data_type=value.data_type, shape=value.shape)


def _needs(value: f.Needs) -> pb.ModelNeeds:
    return pb.ModelNeeds(
        weight_bytes=value.weight_bytes,
        activation_bytes=value.activation_bytes,
        batch_rows=value.batch_rows,
        kv_cache_token_bytes=value.kv_cache_token_bytes,
        context_tokens=value.context_tokens,
        complexity=pb.ModelComplexity.Value(f"MODEL_COMPLEXITY_{value.complexity}"),
        cores=value.cores,
        memory_bytes=value.memory_bytes,
        gpu_memory_bytes=value.gpu_memory_bytes,
    )


def _needs_of(message: pb.ModelNeeds) -> f.Needs:
    return f.Needs(
        weight_bytes=message.weight_bytes if message.HasField("weight_bytes") else None,
        activation_bytes=message.activation_bytes if message.HasField("activation_bytes") else None,
        batch_rows=message.batch_rows,
        kv_cache_token_bytes=message.kv_cache_token_bytes if message.HasField("kv_cache_token_bytes") else None,
        context_tokens=message.context_tokens,
        complexity=_COMPLEXITIES.get(message.complexity, f.Complexity.UNSPECIFIED),
        cores=message.cores,
        memory_bytes=message.memory_bytes if message.HasField("memory_bytes") else None,
        gpu_memory_bytes=message.gpu_memory_bytes if message.HasField("gpu_memory_bytes") else None,
    )


def _safety(value: f.Safety) -> pb.ModelSafety:
    findings = [
        pb.SafetyFinding(
            verdict=pb.SafetyVerdict.Value(f"SAFETY_VERDICT_{finding.verdict}"),
            code=finding.code,
            place=finding.place,
            detail=finding.detail,
        )
        for finding in value.findings
    ]
    verdict = pb.SafetyVerdict.Value(f"SAFETY_VERDICT_{value.verdict}")
    return pb.ModelSafety(verdict=verdict, findings=findings, coverage=value.coverage)


def _finding(message: pb.SafetyFinding) -> f.Finding:
    verdict = _VERDICTS.get(message.verdict, f.Verdict.UNKNOWN)
    return f.Finding(verdict, message.code, message.place, message.detail)

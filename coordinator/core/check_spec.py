"""Whether a job's spec makes sense, alone and against its model. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.core.decompose.infer import row_bytes
from coordinator.core.model import InferSpec, JobSpec, Model, Pairs, ProbeSpec, Rejected
from hivefold import limits
from hivefold.errors import FieldViolation, Reason
from hivefold.ids import DIGEST_RULE, is_digest


def check_spec(spec: JobSpec, model: Model | None) -> Rejected | None:
    """None when the job can be accepted; otherwise why not and what to change."""
    violations = tuple(_violations(spec))
    if violations:
        first = violations[0]
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        message = f"{first.field} {first.description}{more}"
        return Rejected(Reason.INVALID_ARGUMENT, message, violations=violations)
    if isinstance(spec.kind, InferSpec) and model is not None:
        return _check_infer(spec.kind, model)
    return None


def _violations(spec: JobSpec) -> Iterator[FieldViolation]:
    match spec.kind:
        case ProbeSpec():
            yield from _range("spec.probe.task_count", spec.kind.task_count, 1, limits.JOB_TASKS)
            most_us = limits.PROBE_DURATION_MAX_MS * 1000
            yield from _range("spec.probe.task_duration (us)", spec.kind.task_duration_us, 0, most_us)
        case InferSpec():
            yield from _infer_violations(spec.kind)
    yield from _range("spec.max_attempts", spec.max_attempts, 0, limits.MAX_ATTEMPTS)
    yield from _range("spec.timeout (us)", spec.timeout_us, 0, limits.JOB_TIMEOUT_S * 1_000_000)
    yield from _range("spec.needs.memory_bytes", spec.needs.memory_bytes, 0, 1 << 50)
    yield from _range("spec.needs.gpu_count", spec.needs.gpu_count, 0, 1024)
    yield from text_violations("spec.source", spec.source, limits.SOURCE_BYTES)
    yield from text_violations("spec.response_subject", spec.response_subject, limits.SUBJECT_BYTES)
    yield from label_violations("spec.labels", spec.labels)
    yield from label_violations("spec.needs.node_labels", spec.needs.node_labels)


def _infer_violations(spec: InferSpec) -> Iterator[FieldViolation]:
    data = spec.data_set
    field = "spec.infer.data_set"
    if not is_digest(data.content.root):
        yield FieldViolation(f"{field}.blob.root", f"must be {DIGEST_RULE}")
    yield from _range(f"{field}.row_count", data.row_count, 1, 1 << 48)
    yield from _range(f"{field}.row_shape (rank)", len(data.row_shape), 0, limits.TENSOR_RANK - 1)
    for axis, size in enumerate(data.row_shape):
        yield from _range(f"{field}.row_shape[{axis}]", size, 1, limits.ROW_BYTES)
    yield from _range(f"{field}.row_shape (bytes of a row)", row_bytes(spec), 1, limits.ROW_BYTES)
    yield from _range(f"{field}.data_offset_bytes", data.data_offset_bytes, 0, limits.BLOB_BYTES)
    yield from _range("spec.infer.batch_rows", spec.batch_rows, 0, 1_000_000)
    most_us = limits.TASK_TARGET_MAX_MS * 1000
    yield from _range("spec.infer.target_task_duration (us)", spec.target_task_us, 0, most_us)
    yield from text_violations(f"{field}.origin", data.origin, limits.PATH_BYTES)
    yield from text_violations(f"{field}.file.path", data.path, limits.PATH_BYTES)
    if data.path and not data.path.startswith("/"):
        yield FieldViolation(f"{field}.file.path", "must be absolute: every node reads it at the same path")
    if len(set(spec.outputs)) < len(spec.outputs):
        yield FieldViolation("spec.infer.outputs", "must not name an output twice")


def _check_infer(spec: InferSpec, model: Model) -> Rejected | None:
    data = spec.data_set
    needed = data.data_offset_bytes + data.row_count * row_bytes(spec)
    if data.content.size_bytes < needed:
        return Rejected(
            Reason.DATA_INVALID,
            f"the data set holds {data.content.size_bytes} bytes, {data.row_count} rows take {needed}: "
            "it is truncated, or its shape is wrong",
            (("has_bytes", str(data.content.size_bytes)), ("needs_bytes", str(needed))),
        )
    if len(model.inputs) != 1:
        names = ", ".join(tensor.name for tensor in model.inputs)
        return Rejected(
            Reason.SHAPE_MISMATCH,
            f"{model.ref} has {len(model.inputs)} inputs ({names}); batch inference feeds models with one",
            (("model", model.ref),),
        )
    return _check_input(spec, model) or _check_outputs(spec, model)


def _check_input(spec: InferSpec, model: Model) -> Rejected | None:
    data, tensor = spec.data_set, model.inputs[0]
    metadata = (("input", tensor.name), ("model", model.ref))
    if tensor.data_type != data.data_type:
        return Rejected(
            Reason.DATA_TYPE_MISMATCH,
            f"input {tensor.name!r} of {model.ref} takes {tensor.data_type}, the data set holds {data.data_type}; "
            "convert it first, e.g. numpy's astype",
            (*metadata, ("expected", tensor.data_type), ("found", data.data_type)),
        )
    expected = tensor.shape[1:]
    fits = len(expected) == len(data.row_shape) and all(
        want in {-1, have} for want, have in zip(expected, data.row_shape, strict=True)
    )
    if not tensor.shape or not fits:
        return Rejected(
            Reason.SHAPE_MISMATCH,
            f"input {tensor.name!r} of {model.ref} takes rows of shape {list(expected)} (-1: any), "
            f"the data set's rows have shape {list(data.row_shape)}",
            (*metadata, ("expected", str(list(expected))), ("found", str(list(data.row_shape)))),
        )
    return None


def _check_outputs(spec: InferSpec, model: Model) -> Rejected | None:
    names = [tensor.name for tensor in model.outputs]
    for index, name in enumerate(spec.outputs):
        if name not in names:
            message = f"{model.ref} has no output {name!r}; it has: {', '.join(names)}"
            violation = FieldViolation(f"spec.infer.outputs[{index}]", message)
            return Rejected(Reason.INVALID_ARGUMENT, message, violations=(violation,))
    return None


def _range(field: str, value: int, least: int, most: int) -> Iterator[FieldViolation]:
    if not least <= value <= most:
        yield FieldViolation(field, f"must be from {least} to {most}, is {value}")


def label_violations(field: str, labels: Pairs) -> Iterator[FieldViolation]:
    """What is wrong with labels: too many, too long, not printable."""
    yield from _range(f"{field} (count)", len(labels), 0, limits.JOB_LABELS)
    for key, value in labels:
        yield from text_violations(f"{field}[{key[:32]!r}]", key + value, limits.LABEL_BYTES)


def text_violations(field: str, text: str, most_bytes: int) -> Iterator[FieldViolation]:
    """What is wrong with a text for people: too long, or something that a terminal would act upon."""
    if len(text.encode(errors="replace")) > most_bytes:
        yield FieldViolation(field, f"must be at most {most_bytes} bytes long")
    elif not text.isprintable() and text:
        yield FieldViolation(field, "must hold printable characters only")

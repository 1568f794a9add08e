"""Whether a request is well-formed, field by field. Whether it makes sense is decided by the core."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from google.protobuf.duration_pb2 import Duration

from hivefold.errors import FieldViolation, InvalidRequestError
from hivefold.ids import (
    DIGEST_RULE,
    MODEL_RULE,
    NAME_RULE,
    REQUEST_RULE,
    is_digest,
    is_name,
    is_request_id,
    names_model,
)
from hivefold.limits import MODEL_BYTES, STREAM_PIECE_MAX_BYTES
from hivefold.oip.audit import AUDIT_LABEL, Level
from hivefold.oip.batching import wrong_labels
from hivefold.oip.limits import AUDIT_READ_BATCHES
from hivefold.v1 import blob_pb2, job_pb2, job_service_pb2, log_service_pb2, model_pb2, model_service_pb2

Violations = Iterator[FieldViolation]

_OWN_SUBJECTS: Final = frozenset(
    {"work", "results", "control", "heartbeat", "fleet", "telemetry", "events", "blob", "log", "inference"}
)
_ROW_TYPES: Final = frozenset(model_pb2.DataType.values()) - {
    model_pb2.DATA_TYPE_UNSPECIFIED,
    model_pb2.DATA_TYPE_BYTES,
}


def refuse(violations: Violations) -> None:
    """Raises InvalidRequestError that names all malformed fields, if there are any."""
    found = tuple(violations)
    if not found:
        return
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    raise InvalidRequestError(f"{found[0].field} {found[0].description}{more}", violations=found)


def name(field: str, value: str) -> Violations:
    """The id of a job or node, or a model's name."""
    if not is_name(value):
        yield FieldViolation(field, f"must be {NAME_RULE}")


def request_id(value: str, *, field: str = "request_id", required: bool = True) -> Violations:
    """An id that a client gave its request."""
    if not is_request_id(value) and (required or value):
        yield FieldViolation(field, f"must be {REQUEST_RULE}")


def digest(field: str, value: str) -> Violations:
    """A SHA-256 digest."""
    if not is_digest(value):
        yield FieldViolation(field, f"must be {DIGEST_RULE}")


def model(field: str, value: str) -> Violations:
    """A model: the latest version, a version, or what an alias stands for."""
    if not names_model(value):
        yield FieldViolation(field, f"must be {MODEL_RULE}")


def labels(field: str, value: Mapping[str, str]) -> Violations:
    """Labels."""
    if "" in value:
        yield FieldViolation(field, "must not hold an empty key")


def act(field: str, value: str, request: str) -> Violations:
    """An act upon a job or node: whom it concerns, and the request's id where one is given."""
    yield from name(field, value)
    yield from request_id(request, required=False)


def batch_positions(positions: Sequence[int]) -> Violations:
    """Positions of batches of inference."""
    if not 0 < len(positions) <= AUDIT_READ_BATCHES:
        yield FieldViolation("positions", f"must be 1 to {AUDIT_READ_BATCHES}; ask for the others in another call")


def job_states(states: Iterable[int]) -> Violations:
    """States to filter by."""
    for index, state in enumerate(states):
        yield from _known(f"states[{index}]", state, job_pb2.JobState.values()[1:])


def output_format(value: int, known: Iterable[int]) -> Violations:
    """Format of an output file."""
    yield from _known("format", value, known)


def log_range(after: int, up_to: int, name: str = "sequence") -> Violations:
    """A range of the log."""
    if 0 < up_to < after:
        yield FieldViolation(f"up_to_{name}", f"must not be below after_{name}, {after}")


def hand_over(request: log_service_pb2.HandOverRequest) -> Violations:
    """A term to end."""
    yield from request_id(request.request_id)
    if not request.term:
        yield FieldViolation("term", "must be the term that is to end, as GetHead tells it")


def piece(field: str, data: bytes) -> Violations:
    """Bytes of an upload."""
    if len(data) > STREAM_PIECE_MAX_BYTES:
        yield FieldViolation(field, f"must be at most {STREAM_PIECE_MAX_BYTES} bytes in one message, is {len(data)}")


def submit_job(request: job_service_pb2.SubmitJobRequest) -> Violations:
    """A job to accept."""
    spec = request.spec
    yield from request_id(request.request_id)
    match spec.WhichOneof("kind"):
        case "infer":
            yield from _infer(spec.infer)
        case "probe":
            yield from _duration("spec.probe.task_duration", spec.probe, "task_duration")
        case _:
            yield FieldViolation("spec.kind", "must be set: infer or probe")
    yield from _known("spec.priority", spec.priority, job_pb2.Priority.values())
    yield from _duration("spec.timeout", spec, "timeout")
    yield from labels("spec.labels", spec.labels)
    yield from labels("spec.needs.node_labels", spec.needs.node_labels)
    yield from _response_subject(spec.response_subject)
    yield from _duration("wait", request, "wait")


def model_header(header: model_service_pb2.UploadModelHeader) -> Violations:
    """What is said of a model before its bytes come."""
    yield from request_id(header.request_id, field="header.request_id")
    yield from name("header.name", header.name)
    yield from digest("header.digest", header.digest)
    yield from labels("header.labels", header.labels)
    level = header.labels.get(AUDIT_LABEL, Level.WINDOWS)
    if level not in tuple(Level):
        yield FieldViolation(f"header.labels.{AUDIT_LABEL}", f"is {level!r}, and must be {', '.join(Level)}")
    for label, fix in wrong_labels(header.labels).items():
        yield FieldViolation(f"header.labels.{label}", fix)
    if not 1 <= header.size_bytes <= MODEL_BYTES:
        yield FieldViolation("header.size_bytes", f"must be from 1 to {MODEL_BYTES}, is {header.size_bytes}")


def moved_alias(request: model_service_pb2.MoveAliasRequest) -> Violations:
    """An alias to move: to a version, for removing it is another call."""
    if not request.version:
        yield FieldViolation("version", "must be a version from 1; an alias is removed with RemoveAlias")


def _infer(spec: job_pb2.InferSpec) -> Violations:
    field = "spec.infer"
    data = spec.data_set
    yield from model(f"{field}.model", spec.model)
    match data.WhichOneof("location"):
        case "blob":
            yield from _content(f"{field}.data_set.blob", data.blob)
        case "file":
            yield from _content(f"{field}.data_set.file.content", data.file.content)
            yield from _path(f"{field}.data_set.file.path", data.file.path)
        case _:
            yield FieldViolation(f"{field}.data_set.location", "must be set: blob or file")
    yield from _known(f"{field}.data_set.data_type", data.data_type, _ROW_TYPES)
    yield from _known(f"{field}.nan_policy", spec.nan_policy, job_pb2.NanPolicy.values())
    yield from _duration(f"{field}.target_task_duration", spec, "target_task_duration")


def _content(field: str, ref: blob_pb2.BlobRef) -> Violations:
    yield from digest(f"{field}.root", ref.root)
    if ref.size_bytes == 0:
        yield FieldViolation(f"{field}.size_bytes", "must be at least 1: the data set is empty")


def _path(field: str, path: str) -> Violations:
    if not path.startswith("/") or "\0" in path:
        yield FieldViolation(field, "must be an absolute path: every node reads the file there")


def _duration(
    field: str,
    message: job_pb2.JobSpec | job_pb2.ProbeSpec | job_pb2.InferSpec | job_service_pb2.SubmitJobRequest,
    attribute: str,
) -> Violations:
    value: Duration = getattr(message, attribute)
    if value.seconds < 0 or value.nanos < 0:
        yield FieldViolation(field, "must not be negative")
    elif value.nanos > 999_999_999:
        yield FieldViolation(field, "must have nanos below one second")
    elif value.seconds > 315_576_000_000:
        yield FieldViolation(field, "must be at most 10,000 years")


def _known(field: str, value: int, known: Iterable[int]) -> Violations:
    values = sorted(known)
    if value not in values:
        yield FieldViolation(field, f"must be one of the numbers {values}, is {value}")


def _response_subject(subject: str) -> Violations:
    """A subject that a client may have messages sent to: never one that means something within the fleet."""
    if not subject:
        return
    field = "spec.response_subject"
    tokens = subject.split(".")
    if any(not token or token in {"*", ">"} for token in tokens) or any(c.isspace() for c in subject):
        yield FieldViolation(field, "must be a NATS subject without wildcards, e.g. myapp.replies.42")
    elif tokens[0] in _OWN_SUBJECTS or tokens[0].startswith(("$", "_")):
        # "$": the server's own; "_INBOX": where answers to the fleet's own calls arrive.
        yield FieldViolation(field, f"must not begin with {tokens[0]}: that is the fleet's own")

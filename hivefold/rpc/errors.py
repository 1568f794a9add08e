"""The one table between hivefold's errors and google.rpc.Status, in both directions.

Every error carries `ErrorInfo` (reason, domain "hivefold", metadata); malformed fields come as
`BadRequest`, what may be repeated with `RetryInfo`, what is missing or taken with `ResourceInfo`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from hivefold import errors as e
from hivefold.errors import FieldViolation, HivefoldError, Reason
from hivefold.limits import ERROR_MESSAGE_BYTES, ERROR_STATUS_BYTES

DOMAIN: Final = "hivefold"
STATUS_KEY: Final = "grpc-status-details-bin"
_Code = grpc.StatusCode


class Row(NamedTuple):
    """How a reason travels: its status code, the error it becomes, the resource's metadata key, a retry delay."""

    code: grpc.StatusCode
    error: type[HivefoldError]
    resource: str = ""
    retry_ms: int = 0


TABLE: Final[Mapping[Reason, Row]] = {
    Reason.UNSPECIFIED: Row(_Code.UNKNOWN, HivefoldError),
    Reason.INVALID_ARGUMENT: Row(_Code.INVALID_ARGUMENT, e.InvalidRequestError),
    Reason.MODEL_NOT_FOUND: Row(_Code.NOT_FOUND, e.NotFoundError, "model"),
    Reason.JOB_NOT_FOUND: Row(_Code.NOT_FOUND, e.NotFoundError, "job"),
    Reason.NODE_NOT_FOUND: Row(_Code.NOT_FOUND, e.NotFoundError, "node"),
    Reason.BLOB_NOT_FOUND: Row(_Code.NOT_FOUND, e.NotFoundError, "blob"),
    Reason.REQUEST_ID_REUSED: Row(_Code.ALREADY_EXISTS, e.ConflictError, "job"),
    Reason.DIGEST_MISMATCH: Row(_Code.INVALID_ARGUMENT, e.DataRefusedError),
    Reason.MODEL_INVALID: Row(_Code.INVALID_ARGUMENT, e.DataRefusedError),
    Reason.MODEL_EXTERNAL_DATA: Row(_Code.INVALID_ARGUMENT, e.DataRefusedError),
    Reason.MODEL_UNSAFE: Row(_Code.INVALID_ARGUMENT, e.DataRefusedError),
    Reason.ALIAS_MOVED: Row(_Code.ABORTED, e.ConflictError, "alias"),
    Reason.MODEL_IN_USE: Row(_Code.FAILED_PRECONDITION, e.ConflictError, "model"),
    Reason.MODEL_EXISTS: Row(_Code.ALREADY_EXISTS, e.ConflictError, "model"),
    Reason.SHAPE_MISMATCH: Row(_Code.INVALID_ARGUMENT, e.DataRefusedError),
    Reason.DATA_TYPE_MISMATCH: Row(_Code.INVALID_ARGUMENT, e.DataRefusedError),
    Reason.DATA_INVALID: Row(_Code.INVALID_ARGUMENT, e.DataRefusedError),
    Reason.NAN_FOUND: Row(_Code.INVALID_ARGUMENT, e.DataRefusedError),
    Reason.NEEDS_UNSATISFIABLE: Row(_Code.FAILED_PRECONDITION, e.ConflictError),
    Reason.LIMIT_EXCEEDED: Row(_Code.RESOURCE_EXHAUSTED, e.LimitExceededError),
    Reason.LOG_FULL: Row(_Code.RESOURCE_EXHAUSTED, e.LogFullError),
    Reason.BROKER_UNAVAILABLE: Row(_Code.UNAVAILABLE, e.BrokerUnavailableError, retry_ms=1000),
    Reason.NOT_LEADER: Row(_Code.UNAVAILABLE, e.NotLeaderError, retry_ms=1000),
    Reason.DEADLINE_EXCEEDED: Row(_Code.DEADLINE_EXCEEDED, e.UnavailableError),
    Reason.CANCELLED: Row(_Code.CANCELLED, HivefoldError),
    Reason.JOB_STATE: Row(_Code.FAILED_PRECONDITION, e.ConflictError, "job"),
    Reason.JOB_ERASED: Row(_Code.FAILED_PRECONDITION, e.DataRefusedError, "job"),
    Reason.NODE_LOST: Row(_Code.UNAVAILABLE, e.UnavailableError, "node", 1000),
    Reason.RETURNED: Row(_Code.UNAVAILABLE, e.UnavailableError, "node", 1000),
    Reason.RUNTIME_FAILED: Row(_Code.INTERNAL, HivefoldError),
    Reason.OUT_OF_MEMORY: Row(_Code.RESOURCE_EXHAUSTED, e.LimitExceededError),
    Reason.ATTEMPTS_EXHAUSTED: Row(_Code.ABORTED, HivefoldError),
    Reason.FILE_UNREADABLE: Row(_Code.FAILED_PRECONDITION, e.DataRefusedError),
    Reason.LOG_CORRUPT: Row(_Code.DATA_LOSS, e.LogError),
    Reason.SEGMENT_MISSING: Row(_Code.FAILED_PRECONDITION, e.LogError),
    Reason.EVENT_UNKNOWN: Row(_Code.FAILED_PRECONDITION, e.LogError),
    Reason.PROOF_FAILED: Row(_Code.FAILED_PRECONDITION, e.ProofError),
    Reason.INTERNAL: Row(_Code.INTERNAL, HivefoldError),
    Reason.DURABILITY_WEAK: Row(_Code.FAILED_PRECONDITION, e.DurabilityWeakError),
    Reason.SERVER_UNAVAILABLE: Row(_Code.UNAVAILABLE, e.UnavailableError, retry_ms=1000),
    Reason.LOG_FILE_INVALID: Row(_Code.DATA_LOSS, e.LogError),
    Reason.SERVER_BUSY: Row(_Code.RESOURCE_EXHAUSTED, e.LimitExceededError, retry_ms=50),
    Reason.NODE_FULL: Row(_Code.RESOURCE_EXHAUSTED, e.LimitExceededError, retry_ms=1000),
}

_WITHOUT_DETAILS: Final[Mapping[grpc.StatusCode, Reason]] = {
    _Code.UNAVAILABLE: Reason.SERVER_UNAVAILABLE,
    _Code.DEADLINE_EXCEEDED: Reason.DEADLINE_EXCEEDED,
    # Whoever cancels a call of their own hears nothing of it: the far end stops, or has no room for the call.
    _Code.CANCELLED: Reason.SERVER_UNAVAILABLE,
    _Code.INVALID_ARGUMENT: Reason.INVALID_ARGUMENT,
    # A node that is asked what coordinators answer, another program, or a version without the call.
    _Code.UNIMPLEMENTED: Reason.INVALID_ARGUMENT,
    _Code.RESOURCE_EXHAUSTED: Reason.LIMIT_EXCEEDED,
}
"""What a status means that the far end's gRPC library made, not hivefold."""


def error_for(
    reason: Reason, message: str, metadata: Mapping[str, str] | None = None, violations: Sequence[FieldViolation] = ()
) -> HivefoldError:
    """The error of a reason: what a refusal of the core, or a status from afar, is raised as."""
    values = dict(metadata or {})
    position = values.get("position", "")
    if reason is Reason.LOG_CORRUPT and position.isdecimal():
        return e.LogCorruptError(message, position=int(position))
    return TABLE[reason].error(message, reason=reason, metadata=values, violations=violations)


def status_of(error: HivefoldError) -> Status:
    """The status that says all of an error, cut to what fits into trailing metadata."""
    row = TABLE[error.reason]
    message = _cut(error.message, ERROR_MESSAGE_BYTES)
    info = error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN)
    for key, value in error.metadata.items():
        info.metadata[_cut(key, 64)] = _cut(value, 256)
    status = Status(code=row.code.value[0], message=message, details=[_packed(info)])
    if status.ByteSize() > ERROR_STATUS_BYTES:
        info.metadata.clear()
        status.details[0].Pack(info)
    for detail in _more_details(error, row):
        packed = _packed(detail)
        if status.ByteSize() + packed.ByteSize() <= ERROR_STATUS_BYTES:
            status.details.append(packed)
    return status


def code_of(error: HivefoldError) -> grpc.StatusCode:
    """The status code of an error."""
    return TABLE[error.reason].code


def error_from_rpc(error: grpc.RpcError, target: str) -> HivefoldError:
    """The error that a failed call stands for, whether hivefold, a proxy or the gRPC library made it.

    `target` is the address that was called, for the message.
    """
    call: Any = error
    code, details = call.code(), call.details() or ""
    status = _status_in(call.trailing_metadata() or ())
    found = _from_status(status) if status is not None else None
    if found is not None:
        return found
    reason = _WITHOUT_DETAILS.get(code, Reason.INTERNAL)
    return error_for(reason, _explained(code, details, target), {"target": target})


def _more_details(error: HivefoldError, row: Row) -> list[Message]:
    details: list[Message] = []
    if row.retry_ms:
        said = error.metadata.get("retry_ms", "")
        retry_ms = int(said) if said.isdecimal() else row.retry_ms
        delay = Duration(seconds=retry_ms // 1000, nanos=retry_ms % 1000 * 1_000_000)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if row.resource and row.resource in error.metadata:
        name = _cut(error.metadata[row.resource], 256)
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=f"hivefold.v1.{row.resource.capitalize()}", resource_name=name, description=row.code.name
            )
        )
    if error.violations:
        details.append(_bad_request(error.violations))
    return details


def _bad_request(violations: Sequence[FieldViolation]) -> error_details_pb2.BadRequest:
    """As many violations as fit: the first are those that a person mends first."""
    request = error_details_pb2.BadRequest()
    for violation in violations:
        field = request.field_violations.add()
        field.field, field.description = _cut(violation.field, 128), _cut(violation.description, 256)
        if request.ByteSize() > ERROR_STATUS_BYTES // 2:
            del request.field_violations[-1]
            break
    return request


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def _cut(text: str, most_bytes: int) -> str:
    """The text, or its start with an ellipsis, in at most so many bytes; free of what UTF-8 cannot hold."""
    raw = text.encode(errors="replace")
    if len(raw) <= most_bytes:
        return raw.decode()
    return raw[: most_bytes - 3].decode(errors="ignore") + "…"


def _status_in(metadata: Sequence[tuple[str, str | bytes]]) -> Status | None:
    for key, value in metadata:
        if key == STATUS_KEY and isinstance(value, bytes):
            try:
                return Status.FromString(value)
            except DecodeError:
                return None
    return None


def _from_status(status: Status) -> HivefoldError | None:
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        # Only known types are looked into; nothing else of what came is unpacked.
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            detail.Unpack(request)
    if info.domain != DOMAIN:
        return None
    known = info.reason in Reason.__members__
    reason = Reason(info.reason) if known else Reason.UNSPECIFIED
    violations = [FieldViolation(v.field, v.description) for v in request.field_violations]
    return error_for(reason, status.message, dict(info.metadata), violations)


def _explained(code: grpc.StatusCode, details: str, target: str) -> str:
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return f"{target} cannot be reached ({details}): is the fleet running, and is the address right?"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"{target} did not answer in time: try again, or allow more time"
        case grpc.StatusCode.CANCELLED:
            return f"{target} dropped the call: it is stopping, or has too many: try again"
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return f"{target} refused the call as too large or one too many: {details}"
        case grpc.StatusCode.UNIMPLEMENTED:
            return f"{target} does not know this call: it is no coordinator or runs another version; look there"
        case _:
            return f"{target} answered {code.name}: {details}"

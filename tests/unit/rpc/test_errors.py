"""The table between errors and statuses holds in both directions."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from hivefold.errors import (
    FieldViolation,
    HivefoldError,
    InvalidRequestError,
    LogCorruptError,
    NotFoundError,
    Reason,
    UnavailableError,
)
from hivefold.limits import ERROR_STATUS_BYTES
from hivefold.rpc.errors import STATUS_KEY, TABLE, code_of, error_for, error_from_rpc, status_of


def failed_call(code: grpc.StatusCode, details: str = "", status: Status | None = None) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata(*([(STATUS_KEY, status.SerializeToString())] if status else []))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details)


def detail(status: Status, kind: type) -> object:
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):  # type: ignore[attr-defined]
            message = kind()
            packed.Unpack(message)
            return message
    return None


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_comes_back_as_it_went(reason: Reason) -> None:
    """What a server raises is what a client catches: class, reason, message, values, fields."""
    violations = [FieldViolation("spec.timeout", "must be from 0 to 5")]
    error = error_for(reason, "what happened and what to do", {"job": "j-1"}, violations)

    back = error_from_rpc(failed_call(code_of(error), error.message, status_of(error)), "host:1")

    assert type(back) is type(error) is TABLE[reason].error
    assert (back.reason, back.message, back.metadata) == (reason, error.message, {"job": "j-1"})
    assert back.violations == tuple(violations)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_fails_the_call(reason: Reason) -> None:
    """No error ever looks like success."""
    assert TABLE[reason].code is not grpc.StatusCode.OK


def test_a_full_queue_says_itself_when_to_come_back() -> None:
    """The hint of the error goes before that of the table."""
    busy = error_for(Reason.SERVER_BUSY, "full", {"retry_ms": "1250"})
    (hint,) = [detail for detail in status_of(busy).details if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)]
    found = error_details_pb2.RetryInfo()
    hint.Unpack(found)
    assert found.retry_delay.ToMilliseconds() == 1250


def test_only_what_may_succeed_later_is_retried() -> None:
    """UNAVAILABLE, and it alone, makes clients try again; it says after how long, as does what is full."""
    retried = {reason for reason, row in TABLE.items() if row.code is grpc.StatusCode.UNAVAILABLE}

    assert retried | {Reason.SERVER_BUSY, Reason.NODE_FULL} == {reason for reason, row in TABLE.items() if row.retry_ms}
    for reason in retried:
        assert issubclass(TABLE[reason].error, UnavailableError)
        assert detail(status_of(error_for(reason, "later")), error_details_pb2.RetryInfo) is not None


def test_what_is_missing_is_named_as_a_resource() -> None:
    """A program need not parse the message to know which job is missing."""
    status = status_of(NotFoundError("no such job", reason=Reason.JOB_NOT_FOUND, metadata={"job": "j-9"}))
    resource = detail(status, error_details_pb2.ResourceInfo)

    assert isinstance(resource, error_details_pb2.ResourceInfo)
    assert (resource.resource_type, resource.resource_name) == ("hivefold.v1.Job", "j-9")


def test_a_corrupt_log_keeps_its_position() -> None:
    """The position travels as metadata and comes back as a number."""
    error = LogCorruptError("record 7 is missing", position=7)
    back = error_from_rpc(failed_call(code_of(error), error.message, status_of(error)), "host:1")

    assert isinstance(back, LogCorruptError)
    assert back.position == 7


def test_a_huge_error_still_fits_the_trailing_metadata() -> None:
    """A status that is too large would reach the client as another error altogether."""
    error = InvalidRequestError(
        "ä" * 100_000,
        metadata={f"key{n}": "v" * 10_000 for n in range(100)},
        violations=[FieldViolation(f"spec.labels[{n}]", "x" * 1000) for n in range(1000)],
    )

    status = status_of(error)

    assert status.ByteSize() <= ERROR_STATUS_BYTES
    assert detail(status, error_details_pb2.ErrorInfo) is not None
    request = detail(status, error_details_pb2.BadRequest)
    assert isinstance(request, error_details_pb2.BadRequest)
    assert request.field_violations[0].field == "spec.labels[0]"


def test_text_that_utf8_cannot_hold_does_not_break_an_error() -> None:
    """File names may hold lone surrogates."""
    status = status_of(HivefoldError("file \udcff", metadata={"path": "\udcff"}))

    assert status.message == "file ?"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, Reason.SERVER_UNAVAILABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Reason.DEADLINE_EXCEEDED),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Reason.LIMIT_EXCEEDED),
        (grpc.StatusCode.UNIMPLEMENTED, Reason.INVALID_ARGUMENT),
        (grpc.StatusCode.INTERNAL, Reason.INTERNAL),
        (grpc.StatusCode.UNKNOWN, Reason.INTERNAL),
    ],
)
def test_errors_of_the_library_are_explained_too(code: grpc.StatusCode, reason: Reason) -> None:
    """No address, no answer, a message too large: typed, and naming the address."""
    error = error_from_rpc(failed_call(code, "socket closed"), "host:1")

    assert error.reason is reason
    assert "host:1" in error.message


def test_a_reason_of_a_later_version_is_still_an_error() -> None:
    """A newer server's reason reads as unspecified; its message stays."""
    status = Status(code=grpc.StatusCode.NOT_FOUND.value[0], message="no such tier")
    packed = status.details.add()
    packed.Pack(error_details_pb2.ErrorInfo(reason="TIER_NOT_FOUND", domain="hivefold"))

    error = error_from_rpc(failed_call(grpc.StatusCode.NOT_FOUND, "no such tier", status), "host:1")

    assert (error.reason, error.message) == (Reason.UNSPECIFIED, "no such tier")


def test_garbage_in_the_details_is_no_crash() -> None:
    """A proxy may put anything there."""
    trailing = grpc.aio.Metadata((STATUS_KEY, b"\xff\xff\xff"))
    error = error_from_rpc(
        grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), trailing, "x"), "host:1"
    )

    assert error.reason is Reason.SERVER_UNAVAILABLE

"""The one error tree.

HivefoldError
├── InvalidRequestError      fields of the request are malformed; each with its fix
├── NotFoundError            no such job, node, model or blob
├── ConflictError            the id is taken by other content, or the state forbids it
├── DataRefusedError         a model file or a data set is not acceptable
├── LimitExceededError       a bound was reached
├── UnavailableError         cannot be done now; try again
│   ├── BrokerUnavailableError
│   ├── NotLeaderError       the metadata names the leader where one is known
│   │   └── LeaseLostError
│   └── LogFullError
├── ConfigError              the process cannot run as configured
│   └── DurabilityWeakError
├── ProofError               a log, a checkpoint or a key could not prove itself
└── LogError                 the log is not as it must be
    ├── LogCorruptError      does not read as written; has the position
    │   ├── EventUnknownError  was written by a newer version
    │   └── LogFileInvalidError  a file that holds it is damaged; has the byte offset
    ├── FencedError          another coordinator leads; definite
    └── AppendUnresolvedError  whether an append took place could not be found out

Expected refusals inside the core are values (coordinator.core.model.Rejected), not errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class Reason(StrEnum):
    """Why, for programs. Equal to the proto enum hivefold.v1.Reason without its prefix."""

    UNSPECIFIED = "UNSPECIFIED"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    JOB_NOT_FOUND = "JOB_NOT_FOUND"
    NODE_NOT_FOUND = "NODE_NOT_FOUND"
    BLOB_NOT_FOUND = "BLOB_NOT_FOUND"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    DIGEST_MISMATCH = "DIGEST_MISMATCH"
    MODEL_INVALID = "MODEL_INVALID"
    MODEL_EXTERNAL_DATA = "MODEL_EXTERNAL_DATA"
    MODEL_UNSAFE = "MODEL_UNSAFE"
    MODEL_EXISTS = "MODEL_EXISTS"
    SHAPE_MISMATCH = "SHAPE_MISMATCH"
    DATA_TYPE_MISMATCH = "DATA_TYPE_MISMATCH"
    DATA_INVALID = "DATA_INVALID"
    NAN_FOUND = "NAN_FOUND"
    NEEDS_UNSATISFIABLE = "NEEDS_UNSATISFIABLE"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    LOG_FULL = "LOG_FULL"
    BROKER_UNAVAILABLE = "BROKER_UNAVAILABLE"
    NOT_LEADER = "NOT_LEADER"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    JOB_STATE = "JOB_STATE"
    NODE_LOST = "NODE_LOST"
    RETURNED = "RETURNED"
    RUNTIME_FAILED = "RUNTIME_FAILED"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    ATTEMPTS_EXHAUSTED = "ATTEMPTS_EXHAUSTED"
    FILE_UNREADABLE = "FILE_UNREADABLE"
    LOG_CORRUPT = "LOG_CORRUPT"
    INTERNAL = "INTERNAL"
    DURABILITY_WEAK = "DURABILITY_WEAK"
    SERVER_UNAVAILABLE = "SERVER_UNAVAILABLE"
    PROOF_FAILED = "PROOF_FAILED"
    SEGMENT_MISSING = "SEGMENT_MISSING"
    JOB_ERASED = "JOB_ERASED"
    EVENT_UNKNOWN = "EVENT_UNKNOWN"
    LOG_FILE_INVALID = "LOG_FILE_INVALID"
    SERVER_BUSY = "SERVER_BUSY"
    NODE_FULL = "NODE_FULL"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One malformed field: its path in the request and what to do."""

    field: str
    description: str


class HivefoldError(Exception):
    """Any error of hivefold: a reason for programs, a message for people, the values it mentions."""

    default_reason: ClassVar[Reason] = Reason.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        reason: Reason | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)


class InvalidRequestError(HivefoldError):
    """Fields of the request are malformed."""

    default_reason = Reason.INVALID_ARGUMENT


class NotFoundError(HivefoldError):
    """No such job, node, model or blob."""

    default_reason = Reason.BLOB_NOT_FOUND


class ConflictError(HivefoldError):
    """The id is taken by other content, or the state forbids it."""

    default_reason = Reason.JOB_STATE


class DataRefusedError(HivefoldError):
    """A model file or a data set is not acceptable."""

    default_reason = Reason.DATA_INVALID


class LimitExceededError(HivefoldError):
    """A bound was reached."""

    default_reason = Reason.LIMIT_EXCEEDED


class UnavailableError(HivefoldError):
    """Cannot be done now; the same call may succeed later."""

    default_reason = Reason.BROKER_UNAVAILABLE


class BrokerUnavailableError(UnavailableError):
    """The NATS server cannot be reached or did not answer in time."""


class NotLeaderError(UnavailableError):
    """This coordinator does not lead."""

    default_reason = Reason.NOT_LEADER


class LeaseLostError(NotLeaderError):
    """Another coordinator claimed the lease, or it lapsed: whoever held it does not lead any more."""


class LogFullError(UnavailableError):
    """The log cannot take more records."""

    default_reason = Reason.LOG_FULL


class ConfigError(HivefoldError):
    """The process cannot run as configured."""

    default_reason = Reason.INVALID_ARGUMENT


class DurabilityWeakError(ConfigError):
    """The server's durability is weaker than configured."""

    default_reason = Reason.DURABILITY_WEAK


class ProofError(HivefoldError):
    """A log, a checkpoint or a signing key could not prove itself."""

    default_reason = Reason.PROOF_FAILED


class LogError(HivefoldError):
    """The log is not as it must be."""

    default_reason = Reason.LOG_CORRUPT


class LogCorruptError(LogError):
    """The log does not read as it was written.

    `position` is the sequence of the first record that is missing, foreign or altered.
    """

    def __init__(self, message: str, *, position: int) -> None:
        super().__init__(message, metadata={"position": str(position)})
        self.position = position


class LogFileInvalidError(LogCorruptError):
    """A log file is damaged, cut short or none.

    `offset` is that of the first byte of the entry that is wrong; `position` the sequence of the record that
    should have come there, or of the last one where no more should have come.
    """

    def __init__(self, message: str, *, offset: int, position: int) -> None:
        super().__init__(message, position=position)
        self.reason = Reason.LOG_FILE_INVALID
        self.metadata["offset"] = str(offset)
        self.offset = offset


class SegmentMissingError(LogCorruptError):
    """The record at `position` is in a segment that is neither on the broker nor in the archive."""

    default_reason = Reason.SEGMENT_MISSING


class EventUnknownError(LogCorruptError):
    """The record at `position` holds an event of a newer version that may not be passed over."""

    default_reason = Reason.EVENT_UNKNOWN


class FencedError(LogError):
    """Another coordinator leads: the broker refused the append. At most a prefix of it was stored before."""

    default_reason = Reason.NOT_LEADER


class AppendUnresolvedError(LogError):
    """Whether an append took place could not be found out; only a replay can tell."""

    default_reason = Reason.BROKER_UNAVAILABLE

"""The one error tree.

HivefoldError
├── InvalidRequestError      fields of the request are malformed; each with its fix
├── NotFoundError            no such job, node, model or blob
├── ConflictError            the id is taken by other content, or the state forbids it
├── DataRefusedError         a model file or a data set is not acceptable
├── LimitExceededError       a bound was reached
├── JobFailedError           a job that was waited for failed, or was cancelled
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
from typing import ClassVar, Final


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
    ALIAS_MOVED = "ALIAS_MOVED"
    MODEL_IN_USE = "MODEL_IN_USE"


FIXES: Final[Mapping[Reason, str]] = {
    Reason.UNSPECIFIED: "",
    Reason.INVALID_ARGUMENT: "Each violation names the field and the fix.",
    Reason.MODEL_NOT_FOUND: "`hivefold model ls`; register it with `hivefold model add`.",
    Reason.JOB_NOT_FOUND: "`hivefold job ls`; check that you talk to the fleet you mean.",
    Reason.NODE_NOT_FOUND: "`hivefold node ls`.",
    Reason.BLOB_NOT_FOUND: "Upload it again: what is stored already is not sent twice.",
    Reason.REQUEST_ID_REUSED: "Use a new id for a new request; the same id only to repeat the same one.",
    Reason.DIGEST_MISMATCH: "Repeat the upload. For data by path: do not change a file while a job reads it.",
    Reason.MODEL_INVALID: "Export it again; check it with `onnx.checker`.",
    Reason.MODEL_EXTERNAL_DATA: "Save it as one file (`onnx.save(model, path)` without external data).",
    Reason.MODEL_UNSAFE: (
        "`hivefold model inspect FILE` shows the evidence; get the model from somebody you trust, in ONNX or "
        "safetensors."
    ),
    Reason.MODEL_EXISTS: "A version never changes: register the next one.",
    Reason.SHAPE_MISMATCH: "The message names both shapes.",
    Reason.DATA_TYPE_MISMATCH: (
        'Convert the data, e.g. `array.astype("float32")`, or allow rounding (`--cast`): values are never '
        "rounded silently."
    ),
    Reason.DATA_INVALID: "The message names the place, e.g. the row and column of a CSV file.",
    Reason.NAN_FOUND: "Clean the row that is named, or submit with the policy that allows NaN.",
    Reason.NEEDS_UNSATISFIABLE: "Lower the need, label a node, or add one.",
    Reason.LIMIT_EXCEEDED: "Ask for less, or wait when it is a queue that is full.",
    Reason.LOG_FULL: "Free or add disk space for the NATS server, then repeat the call.",
    Reason.BROKER_UNAVAILABLE: (
        "Is it running? `hivefold doctor`. Callers may repeat the call with the same `request_id`."
    ),
    Reason.NOT_LEADER: "Ask the leader that `metadata` names.",
    Reason.DEADLINE_EXCEEDED: (
        "For a job, or a model that is to be loaded: a longer `timeout`, or more nodes. Repeating a call with the same "
        "`request_id` is safe."
    ),
    Reason.CANCELLED: "Nothing, if it was you. The note says who and why.",
    Reason.JOB_STATE: "Look at the job first: `hivefold job show JOB`.",
    Reason.NODE_LOST: "Nothing: it is tried again elsewhere. Look at the node if it happens often.",
    Reason.RETURNED: "Nothing: it is tried again elsewhere.",
    Reason.RUNTIME_FAILED: "The message is the runtime's. Try the rows in question with the model alone.",
    Reason.OUT_OF_MEMORY: "Smaller batches (`batch_rows`), a memory need on the job, or a larger node.",
    Reason.ATTEMPTS_EXHAUSTED: (
        "Read the failures of the attempts: the same one everywhere points at the input, one node at that node."
    ),
    Reason.FILE_UNREADABLE: "Mount it at the same path on every node, or upload the data instead.",
    Reason.LOG_CORRUPT: (
        "Stop. Keep a copy of the data directory, look at the disk; `hivefold log restore --mirror --segment N` "
        "puts the segment back from the mirror."
    ),
    Reason.INTERNAL: "Report it, with the log lines that carry the same trace id.",
    Reason.DURABILITY_WEAK: (
        "Set `sync_interval: always` in the NATS server's JetStream configuration, or accept the weaker class "
        "explicitly."
    ),
    Reason.SERVER_UNAVAILABLE: (
        "Is the fleet running, and is the address right? `hivefold doctor`. Repeating a call with the same "
        "`request_id` is safe."
    ),
    Reason.PROOF_FAILED: (
        "Find out why before anything else: was an older copy of the log restored, was it altered? `hivefold log "
        "verify` names the first bad position."
    ),
    Reason.SEGMENT_MISSING: "Bring its file into `archive_dir` from a copy.",
    Reason.JOB_ERASED: "Submit the job again, with its data.",
    Reason.EVENT_UNKNOWN: "Upgrade hivefold to that version or a later one.",
    Reason.LOG_FILE_INVALID: "Export the log again, or use another copy of the file.",
    Reason.ALIAS_MOVED: "Somebody else moved it: look at `hivefold model show`, then move it again.",
    Reason.MODEL_IN_USE: "Move the alias, `hivefold model unload`, wait for the job; or `hivefold model rm --force`.",
    Reason.NODE_FULL: "Wait that long, ask another node, or give the node more room.",
    Reason.SERVER_BUSY: "Wait that long, send to another node, or give the model more nodes.",
}
"""What to do, for people: the last column of docs/errors.md."""


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

    @property
    def fix(self) -> str:
        """What to do, for people: of each malformed field, else what helps with errors of this reason."""
        said = [f"{violation.field} {violation.description}" for violation in self.violations]
        return "; ".join(said) or FIXES[self.reason]


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


class JobFailedError(HivefoldError):
    """A job that was waited for failed, or was cancelled; the reason is that of the job's failure."""


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

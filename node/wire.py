"""Between the node's values and protobuf: work in, outcomes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from google.protobuf.message import DecodeError

from hivefold.errors import HivefoldError, InvalidRequestError, LimitExceededError, Reason, UnavailableError
from hivefold.limits import ASSIGN_BATCH_TASKS, FAILURE_CHARACTERS
from hivefold.v1 import error_pb2, job_pb2, model_pb2, work_pb2
from node.core import Attempt, Batch

Stored = tuple[str, bytes]
"""An outcome as it is stored: subject and bytes."""

_PRIORITY: Final = {job_pb2.PRIORITY_CONTROL: 0, job_pb2.PRIORITY_INTERACTIVE: 1}
_FINAL: Final = frozenset(
    {
        Reason.INVALID_ARGUMENT,
        Reason.MODEL_INVALID,
        Reason.MODEL_EXTERNAL_DATA,
        Reason.MODEL_UNSAFE,
        Reason.SHAPE_MISMATCH,
        Reason.DATA_TYPE_MISMATCH,
        Reason.DATA_INVALID,
        Reason.NAN_FOUND,
        Reason.LIMIT_EXCEEDED,
        Reason.CANCELLED,
        Reason.DEADLINE_EXCEEDED,
    }
)
"""Another attempt would end alike."""


def read_work(data: bytes) -> work_pb2.WorkBatch:
    """Parses a work message. Raises InvalidRequestError."""
    try:
        return work_pb2.WorkBatch.FromString(data)
    except DecodeError as error:
        raise InvalidRequestError(f"a work message of {len(data)} bytes does not parse; it is dropped") from error


def read_pulse(data: bytes) -> work_pb2.Pulse | None:
    """Parses a pulse; None if it is none."""
    try:
        return work_pb2.Pulse.FromString(data)
    except DecodeError:
        return None


def read_cancel(data: bytes) -> work_pb2.CancelWork | None:
    """Parses the request to give up a job; None if it is none."""
    try:
        return work_pb2.CancelWork.FromString(data)
    except DecodeError:
        return None


def batch_of(work: work_pb2.WorkBatch, delivery: int) -> Batch:
    """What the core is told of a work message. Raises InvalidRequestError for a kind this version does not run."""
    kind = work.spec.WhichOneof("kind")
    if kind == "infer":
        attempts = tuple(
            Attempt(item.task, item.attempt, (rows := item.spec.infer).first_row, rows.row_count) for item in work.items
        )
        group = 1
    elif kind == "probe":
        attempts = tuple(Attempt(item.task, item.attempt) for item in work.items)
        sleeps = work.spec.probe.HasField("task_duration") and work.spec.probe.task_duration.ToNanoseconds() > 0
        group = 1 if sleeps else ASSIGN_BATCH_TASKS
    else:
        raise InvalidRequestError(f"job {work.job_id} is of a kind that this node does not know; update the node")
    return Batch(
        delivery=delivery,
        term=work.term,
        boot_id=work.boot_id,
        job_id=work.job_id,
        attempts=attempts,
        priority=_PRIORITY.get(work.spec.priority, 2),
        deadline_us=work.deadline_time.ToMicroseconds() if work.HasField("deadline_time") else 0,
        group=group,
    )


@dataclass(frozen=True, slots=True)
class Output:
    """What an infer attempt produced: its description, and its bytes where they are few."""

    output: work_pb2.TaskOutput
    inline: bytes = b""


@dataclass(frozen=True, slots=True)
class OutcomeWriter:
    """Writes the outcomes of one work message's attempts. `traceparent` is the trace that they belong to."""

    node_id: str
    boot_id: str
    job_id: str
    term: int
    traceparent: str

    def within(self, traceparent: str) -> OutcomeWriter:
        """A writer for outcomes that belong to a span of their own, if there is one."""
        if not traceparent or traceparent == self.traceparent:
            return self
        return replace(self, traceparent=traceparent)

    def succeeded(self, attempts: Sequence[Attempt], start_us: int, duration_us: int) -> list[Stored]:
        """Successes without output that started together and took equally long."""
        head = self._head(start_us, duration_us)
        head.row_count = 1
        return self._each(attempts, head)

    def produced(self, attempt: Attempt, start_us: int, duration_us: int, output: Output) -> list[Stored]:
        """One success with its output."""
        outcome = self._head(start_us, duration_us)
        outcome.row_count = attempt.row_count
        outcome.output.CopyFrom(output.output)
        outcome.inline_output = output.inline
        return self._each((attempt,), outcome)

    def failed(
        self, attempts: Sequence[Attempt], error: HivefoldError, start_us: int, duration_us: int = 0
    ) -> list[Stored]:
        """Failures of one cause."""
        head = self._head(start_us, duration_us)
        head.failure.CopyFrom(failure_of(error))
        return self._each(attempts, head)

    def _head(self, start_us: int, duration_us: int) -> work_pb2.Outcome:
        outcome = work_pb2.Outcome(
            job_id=self.job_id,
            term=self.term,
            node_id=self.node_id,
            boot_id=self.boot_id,
            traceparent=self.traceparent,
        )
        outcome.start_time.FromMicroseconds(start_us)
        outcome.duration.FromMicroseconds(max(0, duration_us))
        return outcome

    def _each(self, attempts: Sequence[Attempt], head: work_pb2.Outcome) -> list[Stored]:
        # Messages written one after the other parse as one: what attempts share is written once.
        shared = head.SerializeToString()
        subject = f"results.{self.node_id}.{self.job_id}."
        outcome = work_pb2.Outcome
        return [
            (f"{subject}{task}.{number}", shared + outcome(task=task, attempt=number).SerializeToString())
            for task, number, _, _ in attempts
        ]


def failure_of(error: HivefoldError) -> error_pb2.Failure:
    """An error as an attempt's failure, its text as short as the record of it: a runtime's may be of any length."""
    return error_pb2.Failure(
        reason=error_pb2.Reason.Value(f"REASON_{error.reason.value}"),
        message=error.message[:FAILURE_CHARACTERS],
        retryable=_retryable(error),
        metadata=error.metadata,
    )


def _retryable(error: HivefoldError) -> bool:
    if isinstance(error, UnavailableError):
        return True
    return error.reason not in _FINAL or isinstance(error, LimitExceededError)


def data_type_name(data_type: model_pb2.DataType.ValueType) -> str:
    """The element type without its prefix: "FP32"."""
    return model_pb2.DataType.Name(data_type).removeprefix("DATA_TYPE_")


def data_type_number(name: str) -> model_pb2.DataType.ValueType:
    """The element type called `name`."""
    return model_pb2.DataType.Value(f"DATA_TYPE_{name}")

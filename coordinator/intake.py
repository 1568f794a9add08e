"""Turns outcomes into commands, has them recorded, and only then acknowledges them.

An outcome that says all there is to record may come twice: first as a signal, straight from its node, then
from the stream, which stores it with fsync before it hands it on. The signal is recorded at once; the stored
copy then only needs to be acknowledged. Where the signal is lost, or this process dies, the copy does it all.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import structlog
from google.protobuf.message import DecodeError

from coordinator.batch import RecordTooLargeError
from coordinator.core.commands import OutcomeColumns, OutcomeReport, ReportOutcomes
from coordinator.core.model import Failure, TaskOutput
from coordinator.wire.times import micros
from coordinator.wire.values import failure_from_proto, output_from_proto
from coordinator.writer import Writer
from hivefold import limits, observe
from hivefold.bus.port import Message, ResultMessage, ResultReceiver, Signals
from hivefold.errors import HivefoldError, LimitExceededError, NotLeaderError, Reason, UnavailableError
from hivefold.ids import JobId, NodeId, is_digest, is_name
from hivefold.v1 import error_pb2, work_pb2

_log = structlog.get_logger(__name__)
_SUBJECT: Final = re.compile(
    r"results\.(?P<node>[^.]+)\.(?P<job>[^.]+)\.(?P<task>[0-9]{1,15})\.(?P<attempt>[0-9]{1,9})"
)
_NO_NUMBERS: Final = frozenset({"UNSPECIFIED", "BYTES"})


class Intake:
    """Carries outcomes from the results stream to the writer."""

    def __init__(self, writer: Writer, results: ResultReceiver, signals: Signals) -> None:
        self._writer = writer
        self._results = results
        self._signals = signals
        self._express: dict[str, asyncio.Task[bool]] = {}
        """Subjects whose outcome came as a signal, oldest first, until their stored copy comes."""

    async def run(self) -> None:
        """Records outcomes until it is cancelled. Raises NotLeaderError."""
        subscription = await self._signals.subscribe("express.results.>", self._on_express)
        try:
            async for batch in self._results.batches():
                if batch:
                    await self._record(await self._unrecorded(batch))
                    await self._results.acknowledge(batch[-1].sequence)
        finally:
            await subscription.stop()
            for task in self._express.values():
                task.cancel()

    def _on_express(self, message: Message) -> None:
        subject = message.subject.removeprefix("express.")
        if subject in self._express or not self._writer.leading:
            return
        found = list(commands((ResultMessage(0, subject, message.data),)))
        if len(found) != 1 or not all(report.output is None or report.output.blob for report in found[0][0].reports):
            return  # output that came with its outcome is read from the stream: its place there is recorded
        if len(self._express) >= limits.EXPRESS_WAITING:
            self._express.pop(next(iter(self._express))).cancel()
        self._express[subject] = asyncio.create_task(self._record_express(*found[0]))

    async def _record_express(self, body: ReportOutcomes, traceparent: str) -> bool:
        try:
            return await self._execute(body, traceparent)
        except HivefoldError:
            return False  # the stored copy finds out why

    async def _unrecorded(self, batch: Sequence[ResultMessage]) -> Sequence[ResultMessage]:
        """Those of a batch that no signal had recorded before."""
        if not self._express:
            return batch
        rest: list[ResultMessage] = []
        for message in batch:
            express = self._express.get(message.subject)
            if express is None or not await _recorded(express):
                rest.append(message)
            self._express.pop(message.subject, None)
        return rest

    async def _record(self, batch: Sequence[ResultMessage]) -> None:
        """Returns only when all of the batch is recorded: they are gone from the stream's memory after that."""
        pending = list(commands(batch))
        while pending:
            if len(pending) == 1:
                # Without a task of its own it is recorded sooner.
                answers = [await self._execute(*pending[0])]
            else:
                answers = await asyncio.gather(*(self._execute(body, trace) for body, trace in pending))
            pending = [command for command, done in zip(pending, answers, strict=True) if not done]
            if pending:
                await asyncio.sleep(limits.RESEND_DELAY_S)

    async def _execute(self, body: ReportOutcomes, traceparent: str) -> bool:
        with observe.span("process results", kind="consumer", parent=traceparent) as span:
            try:
                await self._writer.execute(body, traceparent=span.traceparent or traceparent)
            except NotLeaderError:
                raise
            except RecordTooLargeError as error:
                return all([await self._execute(part, traceparent) for part in _smaller(body, error)])
            except (UnavailableError, LimitExceededError) as error:
                _log.warning("outcomes not recorded, trying again", reason=error.reason, error=str(error))
                return False
        return True


async def _recorded(express: asyncio.Task[bool]) -> bool:
    """Whether what came as a signal is recorded; waits until that is known."""
    await asyncio.wait((express,))
    return not express.cancelled() and express.result()


def _smaller(body: ReportOutcomes, error: RecordTooLargeError) -> Iterator[ReportOutcomes]:
    """The same outcomes in commands of half the size; one that fits into no record, as a failure."""
    if len(body.reports) + len(body.columns) > 1:
        middle, half = len(body.reports) // 2, len(body.columns) // 2
        yield ReportOutcomes(body.node_id, body.columns[:half], body.reports[:middle])
        yield ReportOutcomes(body.node_id, body.columns[half:], body.reports[middle:])
        return
    for report in body.reports:
        failure = Failure(Reason.LIMIT_EXCEEDED, f"the outcome cannot be recorded: {error.message}")
        yield ReportOutcomes(body.node_id, (), (replace(report, output=None, failure=failure),))


def commands(batch: Sequence[ResultMessage]) -> Iterator[tuple[ReportOutcomes, str]]:
    """The commands of a batch of outcomes, node by node, each with the trace of its first outcome."""
    outcomes: dict[str, list[tuple[int, work_pb2.Outcome]]] = {}
    for message in batch:
        outcome = read_outcome(message)
        if outcome is None:
            _log.error("foreign message in the results stream passed over", subject=message.subject)
            continue
        outcomes.setdefault(outcome.node_id, []).append((message.sequence, outcome))
    for node_id, answers in outcomes.items():
        for first in range(0, len(answers), limits.OUTCOME_COMMAND):
            part = answers[first : first + limits.OUTCOME_COMMAND]
            yield _command(NodeId(node_id), part), part[0][1].traceparent


def read_outcome(message: ResultMessage) -> work_pb2.Outcome | None:
    """The outcome in a message; None where its subject names no attempt.

    The subject says whose outcome it is: the broker checked it. A body that does not parse or speaks of
    another attempt still takes that attempt's only place in the stream, so it reads as a failure that
    another attempt may mend; else the task would wait for ever.
    """
    outcome = work_pb2.Outcome()
    subject = _SUBJECT.fullmatch(message.subject)
    if subject is None or not (is_name(subject["node"]) and is_name(subject["job"])):
        return None
    node_id, job_id = subject["node"], subject["job"]
    names = (node_id, job_id, int(subject["task"]), int(subject["attempt"]))
    try:
        outcome.ParseFromString(message.data)
        if (outcome.node_id, outcome.job_id, outcome.task, outcome.attempt) == names:
            return outcome
        why = "speaks of another attempt"
    except DecodeError:
        why = "does not parse"
    _log.error("outcome not usable", subject=message.subject, sequence=message.sequence, why=why)
    failure = error_pb2.Failure(
        reason=error_pb2.REASON_INTERNAL,
        message=f"the outcome stored for this attempt {why}; look for who else publishes as {node_id}",
        retryable=True,
    )
    return work_pb2.Outcome(node_id=node_id, job_id=job_id, task=names[2], attempt=names[3], failure=failure)


def _command(node_id: NodeId, answers: Sequence[tuple[int, work_pb2.Outcome]]) -> ReportOutcomes:
    plain: dict[str, list[tuple[int, work_pb2.Outcome]]] = {}
    reports: list[OutcomeReport] = []
    for sequence, outcome in answers:
        if outcome.HasField("failure") or outcome.HasField("output"):
            reports.append(_report(sequence, outcome))
        else:
            plain.setdefault(outcome.job_id, []).append((sequence, outcome))
    columns = tuple(
        OutcomeColumns(
            JobId(job_id),
            tuple([o.task for _, o in successes]),
            tuple([o.attempt for _, o in successes]),
            tuple([_duration_us(o) for _, o in successes]),
            tuple([min(o.row_count, limits.SHARD_ROWS_MAX) for _, o in successes]),
            tuple([sequence for sequence, _ in successes]),
        )
        for job_id, successes in plain.items()
    )
    return ReportOutcomes(node_id, columns, tuple(reports))


def _report(sequence: int, outcome: work_pb2.Outcome) -> OutcomeReport:
    failure = bounded(failure_from_proto(outcome.failure)) if outcome.HasField("failure") else None
    output = output_from_proto(outcome.output) if outcome.HasField("output") else None
    if output is not None and not _is_output(output):
        message = "the node's description of its output is malformed; look at its log and version"
        failure, output = Failure(Reason.DATA_INVALID, message, retryable=True), None
    return OutcomeReport(
        job_id=JobId(outcome.job_id),
        task=outcome.task,
        attempt=outcome.attempt,
        duration_us=_duration_us(outcome),
        row_count=min(outcome.row_count, limits.SHARD_ROWS_MAX),
        result_sequence=sequence,
        failure=failure,
        output=output,
    )


def _duration_us(outcome: work_pb2.Outcome) -> int:
    """How long the attempt ran, as far as that can be."""
    return max(0, min(micros(outcome.duration), limits.JOB_TIMEOUT_S * 1_000_000))


def _is_output(output: TaskOutput) -> bool:
    """Whether a task's output is described as nodes do; whether its bytes are so is seen when they are read."""
    return (
        is_digest(output.digest)
        and output.size_bytes <= limits.SHARD_OUTPUT_BYTES
        and (output.blob is None or is_digest(output.blob.root))
        and len(output.tensors) <= limits.MODEL_TENSORS
        and all(
            len(part.name.encode()) <= limits.MODEL_NAME_BYTES
            and part.data_type not in _NO_NUMBERS
            and len(part.shape) <= limits.TENSOR_RANK + 1
            for part in output.tensors
        )
    )


def bounded(failure: Failure) -> Failure:
    """A node's words, cut to what a record can hold many times over."""
    message = failure.message[: limits.FAILURE_CHARACTERS]
    metadata = tuple((k[:64], v[: limits.LABEL_BYTES]) for k, v in failure.metadata[: limits.JOB_LABELS])
    return Failure(failure.reason, message, failure.retryable, metadata)

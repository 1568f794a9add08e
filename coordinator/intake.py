"""Turns outcomes into commands, has them recorded, and only then acknowledges them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import structlog
from google.protobuf.message import DecodeError

from coordinator.core.commands import OutcomeColumns, OutcomeReport, ReportOutcomes
from coordinator.core.model import Failure
from coordinator.wire.times import micros
from coordinator.wire.values import failure_from_proto, output_from_proto
from coordinator.writer import Writer
from hivefold import limits, observe
from hivefold.bus.port import ResultMessage, ResultReceiver
from hivefold.errors import NotLeaderError, UnavailableError
from hivefold.ids import JobId, NodeId
from hivefold.v1 import error_pb2, work_pb2

_log = structlog.get_logger(__name__)


class Intake:
    """Carries outcomes from the results stream to the writer."""

    def __init__(self, writer: Writer, results: ResultReceiver) -> None:
        self._writer = writer
        self._results = results

    async def run(self) -> None:
        """Records outcomes until it is cancelled. Raises NotLeaderError."""
        async for batch in self._results.batches():
            if batch:
                await self._record(batch)
                await self._results.acknowledge(batch[-1].sequence)

    async def _record(self, batch: Sequence[ResultMessage]) -> None:
        """Returns only when all of the batch is recorded: they are gone from the stream's memory after that."""
        pending = list(commands(batch))
        while pending:
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
            except UnavailableError as error:
                _log.warning("outcomes not recorded, trying again", reason=error.reason, error=str(error))
                return False
        return True


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
    try:
        _, node_id, job_id, task, attempt = message.subject.split(".")
        names = (node_id, job_id, int(task), int(attempt))
    except ValueError:
        return None
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
            tuple([micros(o.duration) for _, o in successes]),
            tuple([o.row_count for _, o in successes]),
            tuple([sequence for sequence, _ in successes]),
        )
        for job_id, successes in plain.items()
    )
    return ReportOutcomes(node_id, columns, tuple(reports))


def _report(sequence: int, outcome: work_pb2.Outcome) -> OutcomeReport:
    return OutcomeReport(
        job_id=JobId(outcome.job_id),
        task=outcome.task,
        attempt=outcome.attempt,
        duration_us=micros(outcome.duration),
        row_count=outcome.row_count,
        result_sequence=sequence,
        failure=_bounded(failure_from_proto(outcome.failure)) if outcome.HasField("failure") else None,
        output=output_from_proto(outcome.output) if outcome.HasField("output") else None,
    )


def _bounded(failure: Failure) -> Failure:
    """A node's words, cut to what a record can hold many times over."""
    message = failure.message[: limits.FAILURE_CHARACTERS]
    metadata = tuple((k[:64], v[: limits.LABEL_BYTES]) for k, v in failure.metadata[: limits.JOB_LABELS])
    return Failure(failure.reason, message, failure.retryable, metadata)

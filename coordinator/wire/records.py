"""Records: how a decision is stored, hashed and read back (docs/log-format.md)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from google.protobuf.message import DecodeError

from coordinator.core import commands as cmd
from coordinator.core import events as ev
from coordinator.wire.commands import command_from_proto, command_to_proto
from coordinator.wire.events import event_from_proto, event_to_proto
from coordinator.wire.times import micros, timestamp
from hivefold.errors import LogCorruptError
from hivefold.ids import JobId
from hivefold.log.chain import GENESIS_HASH, record_hash
from hivefold.log.port import CLOSE_SUBJECT, KEY_SUBJECT, TERM_SUBJECT, Entry, Stored
from hivefold.v1 import record_pb2

__all__ = ["GENESIS_HASH", "LogRecord", "NewRecord", "decode_record", "job_subject", "record_hash", "subject_of"]


@dataclass(frozen=True, slots=True)
class NewRecord:
    """What the writer is about to append."""

    sequence: int
    term: int
    record_id: bytes
    command: cmd.Command
    events: tuple[ev.Event, ...]
    previous_hash: bytes
    traceparent: str = ""

    def entry(self) -> Entry:
        """The stored form."""
        message = record_pb2.Record(
            sequence=self.sequence,
            term=self.term,
            record_id=self.record_id,
            record_time=timestamp(self.command.time_us),
            previous_hash=self.previous_hash,
            cause=command_to_proto(self.command),
            events=[event_to_proto(event) for event in self.events],
            traceparent=self.traceparent,
        )
        return Entry(subject_of(self.command.body), message.SerializeToString())


@dataclass(frozen=True)
class LogRecord:
    """A record as read. The cause is decoded when asked for: replay does not need it."""

    sequence: int
    term: int
    time_us: int
    previous_hash: bytes
    hash: bytes
    events: tuple[ev.Event, ...]
    message: record_pb2.Record

    @cached_property
    def command(self) -> cmd.Command:
        """The record's cause. Raises LogCorruptError."""
        return command_from_proto(self.message.cause, self.sequence)

    @property
    def traceparent(self) -> str:
        """Trace context of the decision."""
        return self.message.traceparent


def decode_record(stored: Stored) -> LogRecord:
    """Reads one stored record. Raises LogCorruptError with its position when it is not one."""
    message = record_pb2.Record()
    position = stored.sequence
    try:
        message.ParseFromString(stored.data)
    except DecodeError as error:
        raise LogCorruptError(f"record {position} does not parse: {error}", position=position) from error
    if message.sequence != position:
        raise LogCorruptError(
            f"record {position} says it is record {message.sequence}: records were moved", position=position
        )
    if not message.events:
        raise LogCorruptError(f"record {position} decides nothing: it is foreign", position=position)
    events = [event_from_proto(event, position) for event in message.events]
    return LogRecord(
        sequence=position,
        term=message.term,
        time_us=micros(message.record_time),
        previous_hash=message.previous_hash,
        hash=record_hash(position, stored.subject, stored.data),
        events=tuple([event for event in events if event is not None]),
        message=message,
    )


def subject_of(body: cmd.CommandBody) -> str:
    """Under which subject a decision upon this command is stored."""
    match body:
        case cmd.StartTerm() | cmd.OpenSegment():
            return TERM_SUBJECT
        case cmd.CloseSegment():
            return CLOSE_SUBJECT
        case cmd.EndTerm():
            return "log.term.end"
        case cmd.SubmitJob(job_id=job_id) | cmd.CancelJob(job_id=job_id) | cmd.EraseJob(job_id=job_id):
            return job_subject(job_id)
        case cmd.ConfirmKeysShredded():
            return "log.job"
        case cmd.ChangeSigningKey():
            return KEY_SUBJECT
        case cmd.RegisterModel(model):
            return f"log.model.{model.name}"
        case cmd.MoveAlias(name=name):
            return f"log.model.{name}"
        case cmd.SetResidency(model=text) | cmd.RemoveModel(model=text):
            return f"log.model.{text.partition('@')[0]}"
        case cmd.ConfirmArtifactRemoved():
            return "log.model"
        case cmd.JoinNode(spec):
            return f"log.node.{spec.node_id}"
        case cmd.RecordInferences():
            return "log.inference"
        case cmd.PlaceTasks() | cmd.PlaceReplicas():
            return "log.placement"
        case cmd.ExpireJobs():
            return "log.timer"
        case _:
            return f"log.node.{body.node_id}"


def job_subject(job_id: JobId) -> str:
    """Under which subject a job's submit is stored: the first record there begins the job."""
    return f"log.job.{job_id}"
